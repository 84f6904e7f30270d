//! The layers as one file system.

use super::{Done, Root, descriptor_path};
use crate::kernel::*;
use crate::plan::{At, Plan};
use crate::step::Step;
use crate::wire::overlay;

const MS_NODEV: u64 = 4;
const MOUNT_ATTR_NODEV: u32 = 4;

impl Root {
    /// Mounts the layers and attaches them at the mount point.
    pub(super) fn overlay(&mut self, plan: &mut Plan<'static>) -> Done {
        let step = Step::MountRoot;
        let point = plan.text().at(step, b"")?;
        let (upper, work) = (plan.text().at(step, b"")?, plan.text().at(step, b"")?);
        let flags = plan.u32().at(step, b"")?;
        let count = plan.u32().at(step, b"")? as usize;
        // Layers are opened in this mount namespace and named by descriptor: overlayfs takes only mounts of
        // the caller's namespace, and paths of any length fit.
        // Above what the owner sends, and low enough for a limit of 1024 descriptors.
        let first = 128;
        let lowers = *plan;
        for at in 0..count {
            let path = plan.text().at(step, b"")?;
            self.open_layer(path, first + 2 + at as i32).at(step, path.bytes())?;
        }
        self.open_layer(upper, first).at(step, upper.bytes())?;
        self.open_layer(work, first + 1).at(step, work.bytes())?;
        let mounted = match self.overlay_by_fsopen(first, count, flags) {
            // Before 6.5 there is no `lowerdir+`; a filter around this program may refuse the new calls.
            Err(EINVAL | ENOSYS | EPERM) => self.overlay_by_mount(point, first, count, flags),
            other => other.and_then(|fd| {
                let at = openat(AT_FDCWD, point, O_PATH | O_DIRECTORY, 0)?;
                let moved = move_mount(fd, at);
                close(at);
                moved.map(|()| fd)
            }),
        };
        for at in 0..count + 2 {
            close(first + at as i32);
        }
        let _ = lowers;
        self.fd = mounted.at(step, upper.bytes())?;
        Ok(())
    }

    fn open_layer(&self, path: Text<'_>, number: i32) -> Result<()> {
        let fd = openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0)?;
        let moved = dup3(fd, number, O_CLOEXEC);
        if fd != number {
            close(fd);
        }
        moved
    }

    fn overlay_by_fsopen(&self, first: i32, count: usize, flags: u32) -> Result<i32> {
        let context = fsopen(text!("overlay"))?;
        let configure = || {
            let mut name = [0u8; 32];
            for at in 0..count {
                fsconfig(context, text!("lowerdir+"), descriptor_path(first + 2 + at as i32, &mut name))?;
            }
            fsconfig(context, text!("upperdir"), descriptor_path(first, &mut name))?;
            fsconfig(context, text!("workdir"), descriptor_path(first + 1, &mut name))?;
            fsconfig(context, text!("redirect_dir"), text!("nofollow"))?;
            fsconfig(context, text!("metacopy"), text!("off"))?;
            fsconfig(context, text!("index"), text!("off"))?;
            if flags & overlay::VOLATILE != 0 {
                fsconfig_flag(context, text!("volatile"))?;
            }
            if flags & overlay::USERXATTR != 0 {
                fsconfig_flag(context, text!("userxattr"))?;
            }
            fsconfig_create(context)?;
            fsmount(context, if flags & overlay::NO_DEVICES != 0 { MOUNT_ATTR_NODEV } else { 0 })
        };
        let made = configure();
        close(context);
        made
    }

    fn overlay_by_mount(&self, point: Text<'_>, first: i32, count: usize, flags: u32) -> Result<i32> {
        let mut options = Buffer::new();
        let mut name = [0u8; 32];
        options.push(b"lowerdir=")?;
        for at in 0..count {
            if at > 0 {
                options.push(b":")?;
            }
            options.push(descriptor_path(first + 2 + at as i32, &mut name).bytes())?;
        }
        options.push(b",upperdir=")?;
        options.push(descriptor_path(first, &mut name).bytes())?;
        options.push(b",workdir=")?;
        options.push(descriptor_path(first + 1, &mut name).bytes())?;
        options.push(b",redirect_dir=nofollow,metacopy=off,index=off")?;
        if flags & overlay::VOLATILE != 0 {
            options.push(b",volatile")?;
        }
        if flags & overlay::USERXATTR != 0 {
            options.push(b",userxattr")?;
        }
        let given = if flags & overlay::NO_DEVICES != 0 { MS_NODEV } else { 0 };
        mount(text!("overlay"), point, text!("overlay"), given, Some(options.text()))?;
        openat(AT_FDCWD, point, O_PATH | O_DIRECTORY, 0)
    }
}

/// Options of mount(2), which takes a page of them.
struct Buffer {
    bytes: [u8; 4096],
    used: usize,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: [0; 4096], used: 0 }
    }
    fn push(&mut self, more: &[u8]) -> Result<()> {
        if self.used + more.len() >= self.bytes.len() {
            return Err(E2BIG);
        }
        self.bytes[self.used..self.used + more.len()].copy_from_slice(more);
        self.used += more.len();
        Ok(())
    }
    fn text(&self) -> Text<'_> {
        Text::new(&self.bytes[..self.used + 1])
    }
}
