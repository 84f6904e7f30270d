//! Known attacks again, with more effort: races, programs, terminals and users of their own.

mod accounts;
mod claims;
mod escapes;
mod identity;
mod kernel;
mod paths;
mod processes;
mod redirects;
mod verbs;

use crate::probe::{Place, probe};
use crate::{Tested, trial};
use libtest_mimic::Trial;
use rdock_runtime::{ContainerSpec, Error, Exec, ScopedContainer, Step, blocking};

pub(crate) use processes::with_terminal;
pub(crate) use verbs::verb;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("rt_caps_inheritable_run_and_exec", identity::inheritable),
        trial(
            "rt_caps_inheritable_by_file_capabilities",
            identity::file_capabilities,
        ),
        trial("rt_supplementary_groups_by_exec", identity::groups),
        trial("rt_user_numeric_by_exec", identity::users),
        trial("rt_passwd_newline_inside", identity::newlines),
        trial("rt_passwd_special_file_before_exec", identity::special_files),
        trial("rt_rootfs_dev_symlink_targets", paths::targets),
        trial("rt_masked_devnull_race", paths::masked),
        trial("rt_console_bind_hostile_dev", paths::console),
        trial("rt_id_path_inside", paths::ids),
        trial("rt_proc_self_exe_race", escapes::own_program),
        trial("rt_leaked_fd_cwd_inherited", escapes::leaked_descriptor),
        trial("rt_exec_ptrace_500_execs", escapes::joining_process),
        trial("rt_seccomp_af_alg_other_abis", processes::families),
        trial("rt_tty_inject_of_the_caller", processes::terminal_of_the_caller),
        trial("rt_seccomp_classics", processes::classics),
        trial("rt_cgroup_release_agent", kernel::release_agents),
        trial("rt_exec_root", kernel::root_of_exec),
        trial("rt_exec_output_bound", kernel::output_of_exec),
        trial("rt_mount_dest_race", kernel::destinations),
        trial("rt_mkdirall_race", kernel::directories),
        trial("rt_annotation_mount_option", claims::mount_options),
        trial("rt_checkpoint_spec", claims::checkpoints),
        trial("rt_hook_env", claims::hooks),
        trial("rt_ipc_accounting", accounts::shared_memory),
        trial("rt_plan_buffer", accounts::plans),
        trial("rt_procfs_write_redirect", redirects::procfs),
        trial("rt_rootfs_write_dirfd", redirects::files_of_the_root),
    ]
}

/// Has `test` look at a container that stays, and removes it.
fn beside(place: &Place, spec: &ContainerSpec, test: impl AsyncFnOnce(&ScopedContainer) -> Tested) -> Tested {
    blocking::wait(async {
        let container = spec.start(&place.runtime).await?;
        let tested = test(&container).await;
        container.remove().await?;
        tested
    })?
}

/// A container that stays for longer than any test.
fn waiting() -> Tested<ContainerSpec> {
    probe(&["sleep 600000"])
}

/// Adds a process that does `lines`; what it prints.
async fn inside(
    container: &ScopedContainer,
    lines: &[&str],
    change: impl FnOnce(Exec) -> Exec,
) -> Result<String, Error> {
    let exec = container.exec(["/test"]).env("PROBE", lines.join("\n"));
    let output = change(exec).output().await?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// The error of a launch that had to fail in this step.
fn failed_in<T: std::fmt::Debug>(result: Result<T, Error>, wanted: Step) -> Tested<std::io::Error> {
    match result {
        Err(Error::Launch { step, source, .. }) if step == wanted => Ok(source),
        other => Err(format!("not a failure while {}: {other:?}", wanted.doing()).into()),
    }
}
