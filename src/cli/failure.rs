//! Errors on their way to the user: one clear line each, and an exit code.

use std::fmt;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::process::ExitCode;

use anyhow::{Error, Result};

use crate::bench::Regressed;
use crate::console;
use crate::lua::{self, Ended};

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const REGRESSED: u8 = 3;
/// `EX_SOFTWARE` of BSD's sysexits.
const INTERNAL: u8 = 70;

/// A command line that parses but asks for something contradictory.
#[derive(Debug)]
pub(super) struct UsageError(pub &'static str);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for UsageError {}

/// Runs the program and turns what it returns into an exit code: 0 for success, 1 for an error, which is
/// printed with its causes, 2 for wrong usage, 3 for a benchmark that became slower than its baseline, 70 for a panic,
/// 124 and 125 at a limit on time and memory, 130 after
/// Ctrl-C, and what a script gave to `os.exit`.
pub fn catch(program: impl FnOnce() -> Result<()>) -> ExitCode {
    match panic::catch_unwind(AssertUnwindSafe(program)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            let (code, told) = ending(&error);
            if told {
                console::note(&describe(&error));
            }
            ExitCode::from(code)
        }
        Err(_) => ExitCode::from(INTERNAL),
    }
}

/// The exit code for an error, and whether the user needs to be told of it.
fn ending(error: &Error) -> (u8, bool) {
    match error.downcast_ref::<Ended>() {
        Some(ended) => (ended.code(), !matches!(ended, Ended::Exit(_))),
        None if error.is::<UsageError>() => (USAGE, true),
        None if error.is::<Regressed>() => (REGRESSED, true),
        None => (FAILED, true),
    }
}

/// Makes a panic print one line that asks for a report, in place of a backtrace.
pub fn report_panics_in_one_line() {
    panic::set_hook(Box::new(|info| console::note(&describe_panic(info))));
}

/// `error: …` with its causes in one line; the traceback of a script follows on lines of its own.
fn describe(error: &Error) -> String {
    format!("error: {}", lua::text(error))
}

fn describe_panic(info: &PanicHookInfo) -> String {
    let message = info.payload_as_str().unwrap_or("no message").replace('\n', " ");
    let place = info.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
    format!("internal error: {message}{place}; please report this together with the command line")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};
    use std::time::Duration;

    #[test]
    fn causes_stand_in_one_line_and_none_twice() {
        let error = Err::<(), _>(anyhow!("No such file"))
            .context("cannot read run.json")
            .context("cannot list the runs")
            .unwrap_err();
        assert_eq!(describe(&error), "error: cannot list the runs: cannot read run.json: No such file");
        let error = Err::<(), _>(anyhow!("disk full")).context("cannot write: disk full").unwrap_err();
        assert_eq!(describe(&error), "error: cannot write: disk full");
    }

    #[test]
    fn every_ending_has_its_exit_code() {
        let code = |program: fn() -> Result<()>| format!("{:?}", catch(program));
        let expected = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(code(|| Ok(())), expected(0));
        assert_eq!(code(|| Err(anyhow!("no"))), expected(1));
        assert_eq!(code(|| Err(UsageError("no").into())), expected(2));
        assert_eq!(code(|| Err(Ended::Exit(3).into())), expected(3));
        assert_eq!(code(|| Err(Ended::Interrupted.into())), expected(130));
        assert_eq!(code(|| Err(Ended::Time(Duration::from_secs(1)).into())), expected(124));
        assert_eq!(code(|| Err(Ended::Memory(1 << 20).into())), expected(125));
        assert_eq!(code(|| panic!("a bug")), expected(70));
    }

    #[test]
    fn usage_errors_are_told_from_others() {
        assert!(Error::new(UsageError("needs --output")).context("more").is::<UsageError>());
        assert!(!anyhow!("else").is::<UsageError>());
    }
}
