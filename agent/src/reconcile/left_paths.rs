//! Which paths were left a moment ago: packets may be on them still.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use tokio::time::Instant;
use warren_model::Path;
use warren_plan::handover::LINGERING;

/// Remembers how prefixes were routed. An agent that starts remembers nothing: its start takes longer than packets do.
#[derive(Debug, Default)]
pub(super) struct LeftPaths {
    routed: BTreeMap<IpNet, Path>,
    left: BTreeMap<(IpNet, Path), Instant>,
}

impl LeftPaths {
    /// Takes note of how prefixes are routed now; which paths each has left within [`LINGERING`].
    pub(super) fn note(
        &mut self,
        routed: &BTreeMap<IpNet, Path>,
        now: Instant,
    ) -> BTreeMap<IpNet, BTreeSet<Path>> {
        let before = std::mem::replace(&mut self.routed, routed.clone());
        let gone = before
            .into_iter()
            .filter(|(net, path)| routed.get(net) != Some(path));
        self.left.extend(gone.map(|way| (way, now)));
        self.left.retain(|_, since| now < *since + LINGERING);
        let mut left: BTreeMap<IpNet, BTreeSet<Path>> = BTreeMap::new();
        for (net, path) in self.left.keys() {
            left.entry(*net).or_default().insert(*path);
        }
        left
    }

    /// When the next of them counts no more.
    pub(super) fn until(&self) -> Option<Instant> {
        self.left.values().min().map(|since| *since + LINGERING)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_path_counts_as_left_for_a_moment_after_the_routes_have_moved() {
        let net: IpNet = "10.244.1.0/24".parse().unwrap();
        let by = |path| BTreeMap::from([(net, path)]);
        let left = |paths: &[Path]| BTreeMap::from([(net, paths.iter().copied().collect())]);
        let (mut paths, start) = (LeftPaths::default(), Instant::now());
        assert_eq!(paths.note(&by(Path::Direct), start), BTreeMap::new());
        assert_eq!(paths.until(), None);
        assert_eq!(paths.note(&by(Path::Vxlan), start), left(&[Path::Direct]));
        assert_eq!(paths.until(), Some(start + LINGERING));
        let later = start + LINGERING / 2;
        assert_eq!(
            paths.note(&BTreeMap::new(), later),
            left(&[Path::Vxlan, Path::Direct])
        );
        let later = start + LINGERING;
        assert_eq!(paths.note(&BTreeMap::new(), later), left(&[Path::Vxlan]));
        let later = start + 2 * LINGERING;
        assert_eq!(paths.note(&BTreeMap::new(), later), BTreeMap::new());
        assert_eq!(paths.until(), None);
    }
}
