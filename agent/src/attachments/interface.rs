//! What the two sides of an attachment's veth are called: a function of whose it is.

use warren_ipam::Owner;
use warren_model::fnv::fnv1a;
use warren_plan::Mac;

/// The host side of an attachment's veth: `wrn` and 12 hexadecimal digits of a hash.
pub fn host_interface(owner: &Owner) -> String {
    format!("{}{:012x}", warren_plan::state::VETH_PREFIX, hash(owner) >> 16)
}

/// The MAC of an attachment's pod side: locally administered, the rest of the hash.
pub fn pod_mac(owner: &Owner) -> Mac {
    let [a, b, c, d, e, f, ..] = hash(owner).rotate_left(24).to_be_bytes();
    Mac([a & 0xfc | 0x02, b, c, d, e, f])
}

/// FNV-1a, 64 bits, with a final mix so that all its bits depend on all of the text.
fn hash(owner: &Owner) -> u64 {
    let fnv = fnv1a(&owner.to_string());
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn interface_names_fit_the_kernel_and_tell_attachments_apart() {
        let owners = (0..2000).map(|n| Owner {
            container_id: format!("{n:064x}"),
            if_name: "eth0".to_owned(),
        });
        let names: BTreeSet<(String, Mac)> = owners
            .map(|owner| (host_interface(&owner), pod_mac(&owner)))
            .collect();
        assert_eq!(names.len(), 2000);
        assert!(
            names
                .iter()
                .all(|(name, _)| name.len() == 15 && name.starts_with("wrn"))
        );
        assert!(names.iter().all(|(_, mac)| mac.0[0] & 0x03 == 0x02));
    }
}
