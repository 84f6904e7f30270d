//! Messages for the kernel that were written elsewhere.

use crate::kernel::{self, *};

/// Sends prepared netlink messages and checks every acknowledgement.
pub fn netlink(protocol: i32, messages: &[u8]) -> Result<()> {
    // AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC
    let socket = kernel::socket(16, 3 | 0o2000000, protocol)?;
    let done = netlink_on(socket, messages);
    close(socket);
    done
}

fn netlink_on(socket: i32, messages: &[u8]) -> Result<()> {
    let mut wanted = 0;
    let mut at = 0;
    while at + 16 <= messages.len() {
        let raw = &messages[at..at + 16];
        let length = u32::from_ne_bytes([raw[0], raw[1], raw[2], raw[3]]) as usize;
        let flags = u16::from_ne_bytes([raw[6], raw[7]]);
        // NLM_F_ACK
        wanted += u32::from(flags & 4 != 0);
        at += length.max(16).next_multiple_of(4);
    }
    send(socket, messages)?;
    let mut answer = [0u8; 4096];
    while wanted > 0 {
        let received = receive(socket, &mut answer)?;
        let mut at = 0;
        while at + 20 <= received {
            let raw = &answer[at..];
            let length = u32::from_ne_bytes([raw[0], raw[1], raw[2], raw[3]]) as usize;
            let kind = u16::from_ne_bytes([raw[4], raw[5]]);
            // NLMSG_ERROR, also with 0 for success
            if kind == 2 {
                let errno = -i32::from_ne_bytes([raw[16], raw[17], raw[18], raw[19]]);
                if errno != 0 {
                    return Err(errno);
                }
                wanted -= 1;
            }
            at += length.max(16).next_multiple_of(4);
        }
    }
    Ok(())
}
