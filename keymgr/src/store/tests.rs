//! The store on a real directory.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs::{self, Permissions};
use std::io;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::*;

fn two() -> Epoch {
    Epoch::new(2).unwrap()
}

/// Fails to compile when the type has the trait: then two impls apply to it, and `_` cannot be inferred.
macro_rules! assert_lacks {
    ($type:ty: $($bound:tt)+) => {
        const _: fn() = || {
            trait Ambiguous<A> {
                fn item() {}
            }
            struct HasIt;
            impl<T: ?Sized> Ambiguous<()> for T {}
            impl<T: ?Sized + $($bound)+> Ambiguous<HasIt> for T {}
            let _ = <$type as Ambiguous<_>>::item;
        };
    };
}

assert_lacks!(PrivateKey: std::fmt::Debug);
assert_lacks!(PrivateKey: std::fmt::Display);
assert_lacks!(PrivateKey: Clone);
assert_lacks!(PrivateKey: serde::Serialize);
assert_lacks!(KeyPair: std::fmt::Debug);
assert_lacks!(KeyPair: Clone);
assert_lacks!(KeyPair: serde::Serialize);
assert_lacks!(KeyStore: std::fmt::Debug);
assert_lacks!(KeyStore: Clone);
assert_lacks!(KeyStore: serde::Serialize);

/// A store's directory below a temporary one, not created yet.
fn fresh() -> (TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state/keys");
    (temp, dir)
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The error of an open that has to fail; a store itself cannot be printed.
fn refusal(dir: &Path) -> KeyStoreError {
    match KeyStore::open(dir) {
        Ok(_) => panic!("the store was opened"),
        Err(error) => error,
    }
}

#[test]
fn a_key_is_made_once_and_found_again() {
    let (_temp, dir) = fresh();
    let mut store = KeyStore::open(&dir).unwrap();
    assert_eq!(store.public_keys(), []);
    let first = store.ensure(Epoch::FIRST).unwrap();
    assert_eq!(store.ensure(Epoch::FIRST).unwrap(), first);
    let second = store.ensure(two()).unwrap();
    assert_ne!(first, second);
    assert_eq!(names_in(&dir), ["epoch-1.key", "epoch-2.key"]);
    drop(store);

    let store = KeyStore::open(&dir).unwrap();
    assert_eq!(store.public_keys(), [(Epoch::FIRST, first), (two(), second)]);
    let private = store.private_key(&first).unwrap();
    let derived = x25519_dalek::x25519(*private.expose_bytes(), x25519_dalek::X25519_BASEPOINT_BYTES);
    assert_eq!(&derived, first.as_bytes());
    assert!(
        store
            .private_key(&PublicKey::from_bytes([7; 32]).unwrap())
            .is_none()
    );
}

#[test]
fn a_store_in_memory_takes_over_the_keys_on_disk_and_leaves_none_there() {
    let (_temp, dir) = fresh();
    let on_disk = KeyStore::open(&dir).unwrap().ensure(Epoch::FIRST).unwrap();
    let mut store = KeyStore::in_memory(&dir).unwrap();
    assert_eq!(store.public_keys(), [(Epoch::FIRST, on_disk)]);
    assert_eq!(names_in(&dir), Vec::<String>::new());
    store.carry_over(Epoch::FIRST, two()).unwrap();
    let new = store.replace(Epoch::FIRST).unwrap();
    assert_ne!(new, on_disk);
    assert!(store.private_key(&new).is_some());
    store.retire(two()).unwrap();
    assert_eq!(store.public_keys(), [(Epoch::FIRST, new)]);
    assert_eq!(names_in(&dir), Vec::<String>::new());
    drop(store);
    assert_eq!(KeyStore::in_memory(&dir).unwrap().public_keys(), []);
}

/// Only this hands a private key out of a store: to a device, which hands it back.
fn by_way_of_a_device(store: &KeyStore, public: &PublicKey) -> PrivateKey {
    let mut bytes = *store.private_key(public).unwrap().expose_bytes();
    PrivateKey::from_bytes(&mut bytes)
}

#[test]
fn a_key_is_found_again_in_its_device_and_only_if_it_is_the_one_that_was_there() {
    let (_temp, dir) = fresh();
    let mut before = KeyStore::in_memory(&dir).unwrap();
    let (first, second) = (
        before.ensure(Epoch::FIRST).unwrap(),
        before.ensure(two()).unwrap(),
    );
    let key_of = |public| by_way_of_a_device(&before, public);

    let mut after = KeyStore::in_memory(&dir).unwrap();
    assert!(!after.adopt(Epoch::FIRST, &first, key_of(&second)).unwrap());
    assert_eq!(after.public_keys(), []);
    assert!(after.adopt(Epoch::FIRST, &first, key_of(&first)).unwrap());
    assert!(after.adopt(Epoch::FIRST, &first, key_of(&first)).unwrap());
    assert!(!after.adopt(Epoch::FIRST, &second, key_of(&second)).unwrap());
    assert_eq!(after.public_keys(), [(Epoch::FIRST, first)]);
    assert!(after.private_key(&first).is_some());
    assert!(!dir.exists());

    // Who is told to keep them on the disk after all finds them too.
    let mut on_disk = KeyStore::open(&dir).unwrap();
    assert!(on_disk.adopt(two(), &second, key_of(&second)).unwrap());
    drop(on_disk);
    assert_eq!(KeyStore::open(&dir).unwrap().public_keys(), [(two(), second)]);
}

#[test]
fn a_store_in_memory_needs_no_directory_and_refuses_one_that_others_can_reach() {
    let (_temp, dir) = fresh();
    KeyStore::in_memory(&dir).unwrap().ensure(Epoch::FIRST).unwrap();
    assert!(!dir.exists());
    KeyStore::open(&dir).unwrap().ensure(Epoch::FIRST).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
    let refused = KeyStore::in_memory(&dir).err().map(|error| error.to_string());
    assert!(refused.is_some_and(|it| it.contains("chmod 0700")));
}

#[test]
fn a_replaced_key_is_destroyed_and_another_is_on_the_disk() {
    let (_temp, dir) = fresh();
    let mut store = KeyStore::open(&dir).unwrap();
    let before = store.ensure(Epoch::FIRST).unwrap();
    let text = fs::read(dir.join("epoch-1.key")).unwrap();
    let after = store.replace(Epoch::FIRST).unwrap();
    assert_ne!(before, after);
    assert!(store.private_key(&before).is_none());
    assert_eq!(names_in(&dir), ["epoch-1.key"]);
    assert_ne!(fs::read(dir.join("epoch-1.key")).unwrap(), text);
}

#[test]
fn directory_and_files_are_private() {
    let (_temp, dir) = fresh();
    KeyStore::open(&dir).unwrap().ensure(Epoch::FIRST).unwrap();
    assert_eq!(mode_of(&dir), 0o700);
    assert_eq!(mode_of(dir.parent().unwrap()), 0o700);
    assert_eq!(mode_of(&dir.join("epoch-1.key")), 0o600);
}

#[test]
fn what_others_can_reach_is_refused_with_the_command_that_closes_it() {
    let (_temp, dir) = fresh();
    KeyStore::open(&dir).unwrap().ensure(Epoch::FIRST).unwrap();
    let file = dir.join("epoch-1.key");
    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    for mode in [0o701, 0o710, 0o720, 0o740, 0o750, 0o755, 0o777] {
        set(&dir, mode);
        let error = refusal(&dir);
        assert!(
            matches!(error, KeyStoreError::DirectoryTooOpen { .. }),
            "{mode:o}: {error}"
        );
        assert!(
            error
                .to_string()
                .contains(&format!("`chmod 0700 {}`", dir.display())),
            "{error}"
        );
    }
    set(&dir, 0o700);
    for mode in [0o601, 0o604, 0o610, 0o620, 0o640, 0o644, 0o666, 0o700, 0o4600] {
        set(&file, mode);
        let error = refusal(&dir);
        assert!(
            matches!(error, KeyStoreError::FileTooOpen { .. }),
            "{mode:o}: {error}"
        );
        assert!(
            error
                .to_string()
                .contains(&format!("`chmod 0600 {}`", file.display())),
            "{error}"
        );
    }
    for mode in [0o600, 0o400] {
        set(&file, mode);
        assert_eq!(KeyStore::open(&dir).unwrap().public_keys().len(), 1, "{mode:o}");
    }
}

#[test]
fn what_someone_else_owns_is_refused() {
    let (_temp, dir) = fresh();
    KeyStore::open(&dir).unwrap().ensure(Epoch::FIRST).unwrap();
    let file = dir.join("epoch-1.key");
    // Only root may give a file away; without that right there is nobody to take one from.
    if let Err(error) = std::os::unix::fs::chown(&file, Some(12345), None) {
        assert!(
            std::env::var_os("WARREN_REQUIRE").is_none(),
            "cannot chown: {error}"
        );
        eprintln!("skipped: cannot give a file to another user: {error}");
        return;
    }
    let error = refusal(&dir);
    assert!(
        matches!(error, KeyStoreError::ForeignOwner { owner: 12345, .. }),
        "{error}"
    );
    std::os::unix::fs::chown(&dir, Some(12345), None).unwrap();
    assert!(
        refusal(&dir)
            .to_string()
            .contains(&format!("chown 0 {}`", dir.display()))
    );
}

#[test]
fn only_a_directory_is_a_store_and_only_a_regular_file_a_key() {
    let (temp, dir) = fresh();
    drop(KeyStore::open(&dir).unwrap());
    let link = temp.path().join("link");
    symlink(&dir, &link).unwrap();
    assert!(matches!(refusal(&link), KeyStoreError::NotADirectory { .. }));
    let plain = temp.path().join("plain");
    fs::write(&plain, "").unwrap();
    assert!(matches!(refusal(&plain), KeyStoreError::NotADirectory { .. }));

    let key = dir.join("epoch-1.key");
    symlink(&plain, &key).unwrap();
    assert!(matches!(refusal(&dir), KeyStoreError::NotAFile { .. }));
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    assert!(matches!(refusal(&dir), KeyStoreError::NotAFile { .. }));
    fs::remove_dir(&key).unwrap();
    mkfifo(&key, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    assert!(matches!(refusal(&dir), KeyStoreError::NotAFile { .. }));
}

#[test]
fn a_file_that_holds_no_key_is_never_replaced() {
    let (_temp, dir) = fresh();
    KeyStore::open(&dir).unwrap().ensure(Epoch::FIRST).unwrap();
    let file = dir.join("epoch-1.key");
    let good = fs::read(&file).unwrap();
    let longer = [&good[..], b"x"].concat();
    let two_lines = [&good[..], b"\n"].concat();
    let zeros = [0; FILE_LENGTH];
    for bad in [
        &good[..0],
        &good[..20],
        &good[..43],
        &longer,
        &two_lines,
        &zeros,
        b"\n",
    ] {
        fs::write(&file, bad).unwrap();
        let error = refusal(&dir);
        assert!(matches!(error, KeyStoreError::Corrupt { .. }), "{bad:?}: {error}");
        let text = error.to_string();
        assert!(
            text.contains("epoch-1.key") && text.contains("restore it from a backup"),
            "{text}"
        );
        assert!(!error.is_transient());
        assert_eq!(fs::read(&file).unwrap(), bad);
    }
    fs::write(&file, &good[..44]).unwrap();
    assert_eq!(KeyStore::open(&dir).unwrap().public_keys().len(), 1);
}

#[test]
fn names_that_are_almost_keys_are_refused_and_others_ignored() {
    let (_temp, dir) = fresh();
    drop(KeyStore::open(&dir).unwrap());
    fs::write(dir.join("README"), "not ours").unwrap();
    fs::write(dir.join(".epoch-x.key.new"), "not ours").unwrap();
    drop(KeyStore::open(&dir).unwrap());
    assert_eq!(names_in(&dir), [".epoch-x.key.new", "README"]);
    for name in [
        "epoch-0.key",
        "epoch-01.key",
        "epoch-+1.key",
        "epoch-4294967296.key",
        "epoch-.key",
    ] {
        fs::write(dir.join(name), "").unwrap();
        assert!(matches!(refusal(&dir), KeyStoreError::BadName { .. }), "{name}");
        fs::remove_file(dir.join(name)).unwrap();
    }
}

#[test]
fn a_file_that_appeared_meanwhile_is_not_overwritten() {
    let (_temp, dir) = fresh();
    let mut store = KeyStore::open(&dir).unwrap();
    let file = dir.join("epoch-1.key");
    fs::write(&file, "restored by an operator").unwrap();
    let error = store.ensure(Epoch::FIRST).unwrap_err();
    assert!(matches!(error, KeyStoreError::Occupied { .. }), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "restored by an operator");
    assert_eq!(names_in(&dir), ["epoch-1.key"]);
    assert_eq!(store.public_keys(), []);
}

#[test]
fn one_process_at_a_time() {
    let (_temp, dir) = fresh();
    let first = KeyStore::open(&dir).unwrap();
    let error = refusal(&dir);
    assert!(
        matches!(error, KeyStoreError::Locked { .. }) && error.is_transient(),
        "{error}"
    );
    drop(first);
    KeyStore::open(&dir).unwrap();
}

#[test]
fn an_unfinished_key_is_removed() {
    let (_temp, dir) = fresh();
    drop(KeyStore::open(&dir).unwrap());
    let unfinished = dir.join(".epoch-1.key.new");
    fs::write(&unfinished, "half a k").unwrap();
    // A second descriptor shows what became of the contents.
    let mut watched = fs::File::open(&unfinished).unwrap();
    assert_eq!(KeyStore::open(&dir).unwrap().public_keys(), []);
    assert_eq!(names_in(&dir), [""; 0]);
    assert_eq!(io::read_to_string(&mut watched).unwrap(), "\0".repeat(8));
}

#[test]
fn a_crash_between_the_two_names_of_a_new_key_keeps_the_key() {
    let (_temp, dir) = fresh();
    let public = KeyStore::open(&dir).unwrap().ensure(Epoch::FIRST).unwrap();
    fs::hard_link(dir.join("epoch-1.key"), dir.join(".epoch-1.key.new")).unwrap();
    assert_eq!(
        KeyStore::open(&dir).unwrap().public_keys(),
        [(Epoch::FIRST, public)]
    );
    assert_eq!(names_in(&dir), ["epoch-1.key"]);
}

#[test]
fn a_retirement_that_was_cut_short_is_completed() {
    let (_temp, dir) = fresh();
    KeyStore::open(&dir).unwrap().ensure(Epoch::FIRST).unwrap();
    let retired = dir.join(".epoch-1.key.retired");
    fs::rename(dir.join("epoch-1.key"), &retired).unwrap();
    let mut watched = fs::File::open(&retired).unwrap();
    assert_eq!(KeyStore::open(&dir).unwrap().public_keys(), []);
    assert_eq!(names_in(&dir), [""; 0]);
    assert_eq!(
        io::read_to_string(&mut watched).unwrap(),
        "\0".repeat(FILE_LENGTH)
    );
}

#[test]
fn retiring_overwrites_the_file_and_removes_it() {
    let (_temp, dir) = fresh();
    let mut store = KeyStore::open(&dir).unwrap();
    let first = store.ensure(Epoch::FIRST).unwrap();
    let second = store.ensure(two()).unwrap();
    let mut watched = fs::File::open(dir.join("epoch-1.key")).unwrap();
    store.retire(Epoch::FIRST).unwrap();
    assert_eq!(
        io::read_to_string(&mut watched).unwrap(),
        "\0".repeat(FILE_LENGTH)
    );
    assert_eq!(watched.metadata().unwrap().nlink(), 0);
    assert_eq!(names_in(&dir), ["epoch-2.key"]);
    assert!(store.private_key(&first).is_none());
    assert_eq!(store.public_keys(), [(two(), second)]);
    store.retire(Epoch::FIRST).unwrap();
    assert_ne!(store.ensure(Epoch::FIRST).unwrap(), first);
}

#[test]
fn a_retirement_that_failed_can_be_repeated() {
    let (_temp, dir) = fresh();
    let mut store = KeyStore::open(&dir).unwrap();
    let public = store.ensure(Epoch::FIRST).unwrap();
    // A directory of that name lets the rename fail.
    let obstacle = dir.join(".epoch-1.key.retired");
    fs::create_dir(&obstacle).unwrap();
    store.retire(Epoch::FIRST).unwrap_err();
    assert!(store.private_key(&public).is_some());
    fs::remove_dir(&obstacle).unwrap();
    // As if the rename had been done and the overwriting had failed.
    fs::rename(dir.join("epoch-1.key"), &obstacle).unwrap();
    store.retire(Epoch::FIRST).unwrap();
    assert_eq!(names_in(&dir), [""; 0]);
    assert!(store.private_key(&public).is_none());
}

#[test]
fn a_key_that_is_carried_over_outlives_the_epoch_it_came_from() {
    let (_temp, dir) = fresh();
    let mut store = KeyStore::open(&dir).unwrap();
    let error = store.carry_over(Epoch::FIRST, two()).unwrap_err();
    assert!(
        matches!(error, KeyStoreError::NoKey { epoch: Epoch::FIRST }),
        "{error}"
    );
    let public = store.ensure(Epoch::FIRST).unwrap();
    assert_eq!(store.carry_over(Epoch::FIRST, two()).unwrap(), public);
    assert_eq!(store.carry_over(Epoch::FIRST, two()).unwrap(), public);
    assert_eq!(store.public_keys(), [(Epoch::FIRST, public), (two(), public)]);
    store.retire(Epoch::FIRST).unwrap();
    assert!(store.private_key(&public).is_some());
    drop(store);
    let mut store = KeyStore::open(&dir).unwrap();
    assert_eq!(store.public_keys(), [(two(), public)]);
    store.ensure(Epoch::FIRST).unwrap();
    let error = store.carry_over(Epoch::FIRST, two()).unwrap_err();
    assert!(matches!(error, KeyStoreError::Occupied { .. }), "{error}");
}

#[test]
fn wg_reads_our_keys_and_we_read_those_of_wg() {
    let wg = |command: &str, input: &[u8]| -> Option<Vec<u8>> {
        let mut child = match Command::new("wg")
            .arg(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        {
            Ok(child) => child,
            Err(error) => {
                assert!(
                    std::env::var_os("WARREN_REQUIRE").is_none(),
                    "cannot run wg: {error}"
                );
                eprintln!("skipped: cannot run wg: {error}");
                return None;
            }
        };
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        Some(output.stdout)
    };
    let (_temp, dir) = fresh();
    let mut store = KeyStore::open(&dir).unwrap();
    let ours = store.ensure(Epoch::FIRST).unwrap();
    drop(store);
    let Some(derived) = wg("pubkey", &fs::read(dir.join("epoch-1.key")).unwrap()) else {
        return;
    };
    assert_eq!(derived, format!("{ours}\n").into_bytes());

    let theirs = wg("genkey", b"").unwrap();
    let file = dir.join("epoch-2.key");
    fs::write(&file, &theirs).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let expected = String::from_utf8(wg("pubkey", &theirs).unwrap()).unwrap();
    let store = KeyStore::open(&dir).unwrap();
    assert_eq!(
        store.public_keys()[1],
        (two(), expected.trim_end().parse().unwrap())
    );
}
