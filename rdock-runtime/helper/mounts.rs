//! The container's file system: everything by descriptor, every target resolved inside the new root.

mod overlay;
mod paths;

use crate::copy;
use crate::kernel::*;
use crate::plan::{At, Failure, Plan};
use crate::step::Step;
use crate::supervise::report;
use crate::wire::{bind, file_system, op, tell};
use paths::Want;

type Done<T = ()> = core::result::Result<T, Failure>;

const MS_REC: u64 = 0x4000;
const MS_PRIVATE: u64 = 1 << 18;
const MS_SLAVE: u64 = 1 << 19;
const MS_SHARED: u64 = 1 << 20;
const MNT_DETACH: u32 = 2;
const ATTR_RDONLY: u64 = 1;
const NEWNS: u64 = 0x2_0000;
const TMPFS_MAGIC: u64 = 0x0102_1994;
const IN_ROOT: u64 = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;

/// The new root, by descriptor until it is the process's own.
pub struct Root {
    fd: i32,
    /// One empty read-only tmpfs for every masked directory.
    empty: i32,
    /// One tmpfs for all secrets, and how many are in it.
    memory: i32,
    secrets: i32,
}

impl Root {
    pub fn none() -> Self {
        Self { fd: -1, empty: -1, memory: -1, secrets: 0 }
    }

    /// The new root, where there is one.
    pub fn descriptor(&self) -> Option<i32> {
        if self.fd >= 0 { Some(self.fd) } else { None }
    }

    /// One operation on the file system.
    pub fn step(&mut self, tag: u32, plan: &mut Plan<'static>, status: i32) -> Done {
        let bad = Step::ReceivePlan;
        match tag {
            op::PRIVATE => {
                let slave = plan.u32().at(bad, b"")? != 0;
                let how = MS_REC | if slave { MS_SLAVE } else { MS_PRIVATE };
                mount(text!("none"), text!("/"), text!("none"), how, None).at(Step::MountPrivate, b"/")
            }
            op::OVERLAY => self.overlay(plan),
            op::FILE_SYSTEM => self.file_system(plan, status),
            op::BIND => self.bind(plan),
            op::DIRECTORY => {
                let (path, mode) = (plan.text().at(bad, b"")?, plan.u32().at(bad, b"")?);
                let fd = self.target(path, Want::Directory(mode), IN_ROOT).at(Step::Device, path.bytes())?;
                close(fd);
                Ok(())
            }
            op::SYMLINK => {
                let (path, target) = (plan.text().at(bad, b"")?, plan.text().at(bad, b"")?);
                let (parent, name) = self.parent(path).at(Step::Device, path.bytes())?;
                let made = symlinkat(target, parent, Text::new(&name));
                close(parent);
                made.at(Step::Device, path.bytes())
            }
            op::LINK => {
                let (path, target) = (plan.text().at(bad, b"")?, plan.text().at(bad, b"")?);
                match self.link(path, target) {
                    // Not where something of the host is mounted: that is not changed for a container.
                    Err(EXDEV) => {
                        let _ = report(status, tell::WARNING, 0, Step::Link as i32, EXDEV, path.bytes(), &[]);
                        Ok(())
                    }
                    other => other.at(Step::Link, path.bytes()),
                }
            }
            op::DEVICE => self.device(plan),
            op::MASK => {
                let path = plan.text().at(bad, b"")?;
                self.mask(path).at(Step::MaskPath, path.bytes())
            }
            op::READONLY => {
                let path = plan.text().at(bad, b"")?;
                self.make_read_only(path).at(Step::ReadonlyPath, path.bytes())
            }
            op::SYSCTL => {
                let (path, value) = (plan.text().at(bad, b"")?, plan.bytes().at(bad, b"")?);
                self.sysctl(path, value).at(Step::Sysctl, path.bytes())
            }
            op::SECRET => self.secret(plan),
            op::PIVOT => self.pivot().at(Step::PivotRoot, b""),
            op::READONLY_ROOT => {
                let root = openat(AT_FDCWD, text!("/"), O_PATH | O_DIRECTORY, 0).at(Step::PivotRoot, b"/")?;
                let done = mount_setattr(root, false, ATTR_RDONLY, 0);
                close(root);
                done.at(Step::ReadonlyPath, b"/")
            }
            _ => Err(EPROTO).at(bad, b""),
        }
    }

    fn file_system(&mut self, plan: &mut Plan<'static>, status: i32) -> Done {
        let step = Step::Mount;
        let (kind, target) = (plan.text().at(step, b"")?, plan.text().at(step, b"")?);
        let (attributes, flags) = (plan.u32().at(step, b"")?, plan.u32().at(step, b"")?);
        let source = plan.text().at(step, b"")?;
        let count = plan.u32().at(step, b"")?;
        let mut options = [text!(""); 32];
        if count as usize > options.len() {
            return Err(E2BIG).at(step, target.bytes());
        }
        for slot in options.iter_mut().take(count as usize) {
            *slot = plan.text().at(step, b"")?;
        }
        let done = self.mount_kind(kind, target, attributes, flags, source, &options[..count as usize]);
        match done {
            Err(errno) if flags & file_system::OPTIONAL != 0 => {
                let _ = report(status, tell::WARNING, 0, step as i32, errno, target.bytes(), &[]);
                Ok(())
            }
            other => other.at(step, target.bytes()),
        }
    }

    fn mount_kind(
        &self,
        kind: Text<'_>,
        target: Text<'_>,
        attributes: u32,
        flags: u32,
        source: Text<'_>,
        options: &[Text<'_>],
    ) -> Result<()> {
        // /proc, /sys and /dev as a link of the image would lead the mounts after it elsewhere.
        let resolve = if flags & file_system::NO_SYMLINKS != 0 { IN_ROOT | RESOLVE_NO_SYMLINKS } else { IN_ROOT };
        let keep_mode = flags & file_system::KEEP_MODE != 0;
        let to = self.target(target, Want::Directory(if keep_mode { 0o1777 } else { 0o755 }), resolve)?;
        let mut mode = *b"mode=0000\0";
        let mut all = [text!(""); 33];
        all[..options.len()].copy_from_slice(options);
        let mut count = options.len();
        if keep_mode {
            let bits = fstat(to)?.mode;
            for (digit, shift) in mode[5..9].iter_mut().zip([9, 6, 3, 0]) {
                *digit = b'0' + ((bits >> shift) & 7) as u8;
            }
            all[count] = Text::new(&mode);
            count += 1;
        }
        let made = make_file_system(kind, attributes, &all[..count]);
        let mounted = match made {
            Err(errno) if flags & file_system::OR_BIND != 0 => {
                let fd = open_tree(AT_FDCWD, source, true, false).map_err(|_| errno)?;
                mount_setattr(fd, true, u64::from(attributes), MS_PRIVATE).map(|()| fd)
            }
            other => other,
        }?;
        if flags & file_system::COPY_UP != 0 {
            // The new file system is attached already when it is filled: the copy needs a place in no path.
            copy::tree(to, mounted)?;
        }
        let done = move_mount(mounted, to);
        close(mounted);
        close(to);
        done
    }

    fn bind(&mut self, plan: &mut Plan<'static>) -> Done {
        let step = Step::Mount;
        let (source, target) = (plan.text().at(step, b"")?, plan.text().at(step, b"")?);
        let (device, inode) = (plan.u64().at(step, b"")?, plan.u64().at(step, b"")?);
        let (attributes, flags) = (plan.u32().at(step, b"")?, plan.u32().at(step, b"")?);
        let propagation = plan.u32().at(step, b"")?;
        let (subpath, mark) = (plan.text().at(step, b"")?, plan.text().at(step, b"")?);
        let recursive = flags & bind::RECURSIVE != 0;
        let mut from = openat(AT_FDCWD, source, O_PATH, 0).at(step, source.bytes())?;
        let mut seen = fstat(from).at(step, source.bytes())?;
        if inode != 0 && (seen.device, seen.inode) != (device, inode) {
            // Somebody swapped it since the owner looked.
            return Err(ELOOP).at(step, source.bytes());
        }
        if !subpath.bytes().is_empty() {
            let below = open_in(from, subpath, O_PATH, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS);
            let below = below.at(step, subpath.bytes())?;
            close(from);
            from = below;
            seen = fstat(from).at(step, subpath.bytes())?;
        }
        let want = if seen.is_dir() { Want::Directory(0o755) } else { Want::File };
        let to = self.target(target, want, IN_ROOT).at(step, target.bytes())?;
        if flags & bind::COPY_UP != 0 {
            copy::into_volume(to, from, mark).at(Step::CopyUp, target.bytes())?;
        }
        let done = (|| {
            let tree = open_tree(from, text!(""), recursive, true)?;
            let propagation = match propagation {
                1 => MS_SLAVE,
                2 => MS_SHARED,
                _ => MS_PRIVATE,
            };
            // Propagation first and for everything below, whatever the other attributes cover.
            mount_setattr(tree, true, 0, propagation)?;
            mount_setattr(tree, flags & bind::RECURSIVE_READ_ONLY != 0, u64::from(attributes), 0)?;
            move_mount(tree, to)?;
            close(tree);
            Ok(())
        })();
        close(to);
        close(from);
        done.at(step, target.bytes())
    }

    /// A file system in memory of another mount namespace, mounted here too.
    pub fn mount_of(&mut self, namespace: i32, plan: &mut Plan<'static>) -> Done {
        let step = Step::Mount;
        let (path, target) = (plan.text().at(step, b"")?, plan.text().at(step, b"")?);
        let attributes = plan.u32().at(step, b"")?;
        let done = (|| {
            // Only there can it be copied. Entering changes the root, which here may be another than the namespace's.
            let own = openat(AT_FDCWD, text!("/proc/self/ns/mnt"), 0, 0)?;
            let root = openat(AT_FDCWD, text!("/"), O_PATH | O_DIRECTORY, 0)?;
            setns(namespace, NEWNS)?;
            let tree = (|| {
                let there = openat(AT_FDCWD, text!("/"), O_PATH | O_DIRECTORY, 0)?;
                let at = open_in(there, path, O_PATH | O_DIRECTORY, 0, IN_ROOT | RESOLVE_NO_SYMLINKS)?;
                close(there);
                // Whatever else is at that place now is not what was meant.
                let magic = fs_magic(at)?;
                let tree = if magic == TMPFS_MAGIC { open_tree(at, text!(""), false, true) } else { Err(EINVAL) };
                close(at);
                tree
            })();
            setns(own, NEWNS)?;
            fchdir(root)?;
            chroot(text!("."))?;
            close(own);
            close(root);
            let tree = tree?;
            mount_setattr(tree, false, u64::from(attributes), MS_PRIVATE)?;
            let to = self.target(target, Want::Directory(0o1777), IN_ROOT)?;
            let done = move_mount(tree, to);
            close(to);
            close(tree);
            done
        })();
        done.at(step, target.bytes())
    }

    /// A file in memory, bound read-only where the container expects it.
    fn secret(&mut self, plan: &mut Plan<'static>) -> Done {
        const NO_EXEC_DEV_SUID: u64 = 2 | 4 | 8;
        let step = Step::Mount;
        let (point, target) = (plan.text().at(step, b"")?, plan.text().at(step, b"")?);
        let (uid, gid) = (plan.u32().at(step, b"")?, plan.u32().at(step, b"")?);
        let mode = plan.u32().at(step, b"")?;
        let content = plan.bytes().at(step, b"")?;
        let done = (|| {
            if self.memory < 0 {
                let options = [text!("mode=0700"), text!("noswap")];
                let flags = NO_EXEC_DEV_SUID as u32;
                // Before 6.4, and in a user namespace, there is no `noswap`.
                let made = make_file_system(text!("tmpfs"), flags, &options)
                    .or_else(|_| make_file_system(text!("tmpfs"), flags, &options[..1]))?;
                // Only what is attached in this namespace can be bound from (before 6.15).
                let at = openat(AT_FDCWD, point, O_PATH | O_DIRECTORY, 0)?;
                let moved = move_mount(made, at);
                close(at);
                moved?;
                self.memory = made;
            }
            let mut name = [0u8; 32];
            let name = descriptor_path(self.secrets, &mut name);
            self.secrets += 1;
            // Its number alone.
            let slash = name.bytes().iter().rposition(|&byte| byte == b'/').ok_or(EINVAL)?;
            let mut number = [0u8; 16];
            let digits = &name.bytes()[slash + 1..];
            number[..digits.len()].copy_from_slice(digits);
            let number = Text::new(&number[..digits.len() + 1]);
            let file = openat(self.memory, number, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0o600)?;
            let filled = write_all(file, content)
                .and_then(|()| fchownat(file, text!(""), uid, gid, AT_EMPTY_PATH))
                .and_then(|()| fchmod(file, mode));
            close(file);
            filled?;
            let from = openat(self.memory, number, O_PATH | O_NOFOLLOW, 0)?;
            let tree = open_tree(from, text!(""), false, true);
            close(from);
            let tree = tree?;
            let to = mount_setattr(tree, false, ATTR_RDONLY | NO_EXEC_DEV_SUID, MS_PRIVATE)
                .and_then(|()| self.target(target, Want::File, IN_ROOT));
            let done = to.and_then(|to| {
                let moved = move_mount(tree, to);
                close(to);
                moved
            });
            close(tree);
            done
        })();
        done.at(step, target.bytes())
    }

    fn device(&mut self, plan: &mut Plan<'static>) -> Done {
        let step = Step::Device;
        let (path, source) = (plan.text().at(step, b"")?, plan.text().at(step, b"")?);
        let mode = plan.u32().at(step, b"")?;
        let (major, minor) = (plan.u32().at(step, b"")?, plan.u32().at(step, b"")?);
        let (uid, gid) = (plan.u32().at(step, b"")?, plan.u32().at(step, b"")?);
        let from_host = plan.u32().at(step, b"")? != 0;
        let done = (|| {
            let (parent, name) = self.parent(path)?;
            let name = Text::new(&name);
            if !from_host {
                match mknodat(parent, name, mode, device_number(major, minor)) {
                    Ok(()) => {
                        fchownat(parent, name, uid, gid, AT_SYMLINK_NOFOLLOW)?;
                        fchmodat(parent, name, mode & 0o7777)?;
                        close(parent);
                        return Ok(());
                    }
                    // Or something is there, which the device is bound over.
                    Err(EPERM | EEXIST) => {}
                    Err(errno) => return Err(errno),
                }
            }
            close(parent);
            // In a user namespace no device can be made; the host's own is bound.
            let from = openat(AT_FDCWD, source, O_PATH | O_NOFOLLOW, 0)?;
            if fstat(from)?.rdev != (major, minor) {
                return Err(EINVAL);
            }
            let to = self.target(path, Want::File, IN_ROOT)?;
            let tree = open_tree(from, text!(""), false, true)?;
            move_mount(tree, to)?;
            close(tree);
            close(to);
            close(from);
            Ok(())
        })();
        done.at(step, path.bytes())
    }

    /// A symbolic link in the root's own file system, in the place of what is there. One that leads there already stays.
    pub fn link(&self, path: Text<'_>, target: Text<'_>) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        let name = Text::new(&name);
        let done = (|| {
            let mut link = [0u8; 4096];
            if readlinkat(parent, name, &mut link).is_ok_and(|length| &link[..length] == target.bytes()) {
                return Ok(());
            }
            if fstat(parent)?.device != fstat(self.fd)?.device {
                return Err(EXDEV);
            }
            match symlinkat(target, parent, name) {
                Err(EEXIST) => {}
                other => return other,
            }
            unlinkat(parent, name, 0)?;
            symlinkat(target, parent, name)
        })();
        close(parent);
        done
    }

    fn mask(&mut self, path: Text<'_>) -> Result<()> {
        let to = match open_in(self.fd, path, O_PATH, 0, IN_ROOT) {
            Err(ENOENT | ENOTDIR) => return Ok(()),
            other => other?,
        };
        let over = if fstat(to)?.is_dir() {
            if self.empty < 0 {
                // The first one is attached itself: only what is attached in this namespace can be bound from
                // (before 6.15).
                self.empty = make_file_system(text!("tmpfs"), ATTR_RDONLY as u32 | 14, &[text!("size=0k"), text!("nr_inodes=2"), text!("mode=0755")])?;
                let done = move_mount(self.empty, to);
                close(to);
                return done;
            }
            open_tree(self.empty, text!(""), false, true)?
        } else {
            // The container's own null device, and nothing that was put in its place.
            let null = open_in(self.fd, text!("/dev/null"), O_PATH, 0, IN_ROOT | RESOLVE_NO_SYMLINKS)?;
            let stat = fstat(null)?;
            if stat.kind() != 0o020000 || stat.rdev != (1, 3) {
                return Err(EINVAL);
            }
            let tree = open_tree(null, text!(""), false, true)?;
            close(null);
            tree
        };
        let done = move_mount(over, to);
        close(over);
        close(to);
        done
    }

    fn make_read_only(&self, path: Text<'_>) -> Result<()> {
        let at = match open_in(self.fd, path, O_PATH, 0, IN_ROOT) {
            Err(ENOENT | ENOTDIR) => return Ok(()),
            other => other?,
        };
        let tree = open_tree(at, text!(""), true, true)?;
        mount_setattr(tree, true, ATTR_RDONLY, 0)?;
        let done = move_mount(tree, at);
        close(tree);
        close(at);
        done
    }

    fn sysctl(&self, path: Text<'_>, value: &[u8]) -> Result<()> {
        let fd = open_in(self.fd, path, O_WRONLY, 0, IN_ROOT | RESOLVE_NO_SYMLINKS)?;
        let done = if fs_magic(fd)? == PROC_MAGIC { write_all(fd, value) } else { Err(EINVAL) };
        close(fd);
        done
    }

    fn pivot(&mut self) -> Result<()> {
        fchdir(self.fd)?;
        match pivot_root(text!("."), text!(".")) {
            Ok(()) => {
                // The old root lies over the new one now.
                umount(text!("."), MNT_DETACH)?;
            }
            // On an initial ramdisk, or refused by a filter around this program.
            Err(EINVAL | EPERM | ENOSYS) => {
                let slash = openat(AT_FDCWD, text!("/"), O_PATH | O_DIRECTORY, 0)?;
                move_mount(self.fd, slash)?;
                fchdir(self.fd)?;
                chroot(text!("."))?;
                close(slash);
            }
            Err(errno) => return Err(errno),
        }
        chdir(text!("/"))?;
        close(self.fd);
        self.fd = -1;
        if self.empty >= 0 {
            close(self.empty);
            self.empty = -1;
        }
        if self.memory >= 0 {
            close(self.memory);
            self.memory = -1;
        }
        Ok(())
    }

    /// Binds the terminal on /dev/console of the own root.
    pub fn bind_console(&self, slave: i32) -> Result<()> {
        let root = openat(AT_FDCWD, text!("/"), O_PATH | O_DIRECTORY, 0)?;
        let inside = Self { fd: root, empty: -1, memory: -1, secrets: 0 };
        let to = inside.target(text!("/dev/console"), Want::File, IN_ROOT | RESOLVE_NO_SYMLINKS)?;
        let tree = open_tree(slave, text!(""), false, true)?;
        let done = move_mount(tree, to);
        for fd in [tree, to, root] {
            close(fd);
        }
        done
    }

    /// Makes every directory of a path that is missing, inside `root`.
    pub fn make_directories(&self, root: i32, path: &[u8]) -> Result<()> {
        let inside = Self { fd: root, empty: -1, memory: -1, secrets: 0 };
        let mut copy = [0u8; 4096];
        if path.len() >= copy.len() {
            return Err(E2BIG);
        }
        copy[..path.len()].copy_from_slice(path);
        let fd = inside.target(Text::new(&copy[..path.len() + 1]), Want::Directory(0o755), IN_ROOT)?;
        close(fd);
        Ok(())
    }
}

/// `/proc/self/fd/N`.
fn descriptor_path(fd: i32, into: &mut [u8; 32]) -> Text<'_> {
    let prefix = b"/proc/self/fd/";
    into[..prefix.len()].copy_from_slice(prefix);
    let mut digits = [0u8; 10];
    let mut count = 0;
    let mut rest = fd;
    loop {
        digits[count] = b'0' + (rest % 10) as u8;
        count += 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    for at in 0..count {
        into[prefix.len() + at] = digits[count - 1 - at];
    }
    into[prefix.len() + count] = 0;
    Text::new(&into[..prefix.len() + count + 1])
}

/// A detached mount of a new file system. Options are `key=value` or a flag.
fn make_file_system(kind: Text<'_>, attributes: u32, options: &[Text<'_>]) -> Result<i32> {
    let context = fsopen(kind)?;
    let configure = || {
        for option in options {
            let bytes = option.bytes();
            match bytes.iter().position(|&byte| byte == b'=') {
                Some(at) => {
                    let mut key = [0u8; 64];
                    if at >= key.len() {
                        return Err(EINVAL);
                    }
                    key[..at].copy_from_slice(&bytes[..at]);
                    let value = &bytes[at + 1..];
                    let mut copy = [0u8; 256];
                    if value.len() >= copy.len() {
                        return Err(E2BIG);
                    }
                    copy[..value.len()].copy_from_slice(value);
                    fsconfig(context, Text::new(&key[..at + 1]), Text::new(&copy[..value.len() + 1]))?;
                }
                None => fsconfig_flag(context, *option)?,
            }
        }
        // Shown as the mount's source.
        let _ = fsconfig(context, text!("source"), kind);
        fsconfig_create(context)?;
        fsmount(context, attributes)
    };
    let made = configure();
    close(context);
    made
}
