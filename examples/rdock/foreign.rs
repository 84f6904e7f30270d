//! Flags of docker's `run` and `create` about what rdock does not have: each says why, but where what is asked for is
//! what happens anyway.

use crate::Failure;
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Foreign {
    /// Only runc, which stands for rdock's own runtime here
    #[arg(long)]
    runtime: Option<String>,
    /// Options of a storage driver: there are none here
    #[arg(long)]
    storage_opt: Vec<String>,
    /// Only local
    #[arg(long)]
    volume_driver: Option<String>,
    /// Only default: the others are of Windows
    #[arg(long)]
    isolation: Option<String>,
    /// Accepted and without meaning: images are checked by their digests
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    disable_content_trust: Option<bool>,
    #[arg(long, hide = true)]
    kernel_memory: Option<String>,
    #[arg(long, hide = true)]
    use_api_socket: bool,
    #[arg(long, hide = true)]
    cpu_count: Option<i64>,
    #[arg(long, hide = true)]
    cpu_percent: Option<i64>,
    #[arg(long, hide = true)]
    io_maxbandwidth: Option<String>,
    #[arg(long, hide = true)]
    io_maxiops: Option<String>,
}

impl Foreign {
    /// # Errors
    /// Names the flag that cannot be followed, and why.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let refuse = |flag: &str, why: &str| {
            Err(Failure {
                code: 125,
                ..Failure::new(format!("{flag}: {why}"))
            })
        };
        match self.runtime.as_deref() {
            None | Some("" | "runc" | "io.containerd.runc.v2") => {}
            Some(other) => {
                return refuse(
                    &format!("--runtime {other}"),
                    "rdock sets containers up itself and has no other runtime",
                );
            }
        }
        if let Some(option) = self.storage_opt.first() {
            let why = match option.split_once('=') {
                Some(("size", _)) => {
                    "the writable layer has no quota of its own; give the container a volume or a tmpfs of that size"
                }
                _ => "rdock has no storage drivers and none of their options",
            };
            return refuse(&format!("--storage-opt {option}"), why);
        }
        match self.volume_driver.as_deref() {
            None | Some("" | "local") => {}
            Some(other) => return refuse(&format!("--volume-driver {other}"), "there is local alone"),
        }
        match self.isolation.as_deref() {
            None | Some("" | "default") => {}
            Some(other) => {
                return refuse(
                    &format!("--isolation {other}"),
                    "only Windows has others than default",
                );
            }
        }
        if self.kernel_memory.as_deref().is_some_and(|text| text != "0") {
            return refuse(
                "--kernel-memory",
                "the kernel has no such limit any more; --memory counts what it uses for the container too",
            );
        }
        if self.use_api_socket {
            return refuse("--use-api-socket", "there is no daemon and no socket of one");
        }
        for (flag, given) in [
            ("--cpu-count", self.cpu_count.is_some_and(|count| count != 0)),
            ("--cpu-percent", self.cpu_percent.is_some_and(|share| share != 0)),
            ("--io-maxbandwidth", self.io_maxbandwidth.is_some()),
            ("--io-maxiops", self.io_maxiops.is_some()),
        ] {
            if given {
                return refuse(flag, "only Windows has it");
            }
        }
        Ok(())
    }
}
