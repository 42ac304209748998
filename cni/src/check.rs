//! CHECK: whether what the runtime remembers of ADD is what the agent holds.

use warren_cni_wire::{AddResult, AttachmentId, ErrorCode, NetnsPath, PrevInterface, PrevResult};

use crate::failure::Failure;

/// Everything the agent holds inside the container has to be in `prev`, the result of the whole chain at ADD.
///
/// The host's end is left out, since it is nobody's business but ours, and so are hardware address, MTU and routes,
/// which a later plugin in the chain (`tuning`, for one) may have changed.
pub(crate) fn compare(
    attachment: &AttachmentId,
    netns: &NetnsPath,
    held: &AddResult,
    prev: &PrevResult,
) -> Result<(), Failure> {
    let if_name = attachment.if_name.as_str();
    let is_ours =
        |made: &PrevInterface| made.name == if_name && made.sandbox.as_deref() == Some(netns.as_str());
    let differs = |what: String| {
        Failure::new(
            ErrorCode::ATTACHMENT_DIFFERS,
            format!("attachment {attachment} is not what the runtime remembers: {what}; recreate the pod"),
        )
    };
    let agents = |name: &str| {
        held.interfaces
            .iter()
            .any(|made| made.name.as_str() == name && made.sandbox.is_some())
    };
    if !agents(if_name) {
        return Err(differs(format!(
            "warren-agent holds no interface {if_name} in a container"
        )));
    }
    if !prev.interfaces.iter().any(is_ours) {
        return Err(differs(format!(
            "prevResult has no interface {if_name} in {netns}"
        )));
    }
    let on_ours = |interface: Option<usize>| {
        // An address that names no interface is on the only one there is to speak of.
        interface.is_none_or(|index| prev.interfaces.get(index).is_some_and(is_ours))
    };
    for ip in &held.ips {
        if !prev
            .ips
            .iter()
            .any(|known| known.address == ip.address && on_ours(known.interface))
        {
            return Err(differs(format!(
                "prevResult has no address {} on {if_name}",
                ip.address
            )));
        }
    }
    Ok(())
}
