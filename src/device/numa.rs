//! Memory near a GPU: on machines of several processors a copy from the memory of the wrong one crosses the link between them.

/// The node of memory that a PCI device is plugged into, as the system says it; `None` where there is one alone, or nothing is said.
fn node(bus: &str) -> Option<u32> {
    let path = format!("/sys/bus/pci/devices/{}/numa_node", bus.to_ascii_lowercase());
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// While it lives, memory that this thread asks the system for lies near a device if any is left there.
pub(super) struct Near(bool);

impl Near {
    pub fn to(bus: Option<&str>) -> Near {
        Near(bus.and_then(node).is_some_and(prefer))
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        if self.0 {
            policy(0, None);
        }
    }
}

#[cfg(target_os = "linux")]
fn prefer(node: u32) -> bool {
    const PREFERRED: i64 = 1;
    node < 64 && policy(PREFERRED, Some(1 << node))
}

/// Source: set_mempolicy(2): mode 0 is the default, 1 prefers the nodes of the mask.
#[cfg(target_os = "linux")]
fn policy(mode: i64, nodes: Option<u64>) -> bool {
    let (mask, bits) = nodes.as_ref().map_or((std::ptr::null(), 0), |nodes| (std::ptr::from_ref(nodes), 65_u64));
    // SAFETY: the mask holds 64 bits, of which the call reads one less than it is told, and it keeps nothing.
    unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn prefer(_: u32) -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
fn policy(_: i64, _: Option<u64>) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_had_whatever_is_said_of_a_device() {
        for bus in [None, Some("0000:ff:1f.7"), Some("nonsense/../..")] {
            let near = Near::to(bus);
            assert_eq!(vec![1_u8; 1 << 20].iter().map(|&b| u64::from(b)).sum::<u64>(), 1 << 20);
            drop(near);
        }
        if cfg!(target_os = "linux") {
            // A node that there always is. Where the system forbids it, nothing changes.
            let near = Near(prefer(0));
            assert_eq!(vec![2_u8; 1 << 20].len(), 1 << 20);
            drop(near);
        }
    }
}
