//! `--memory-limit` and `--time-limit`: sizes and durations as people write them.

use std::time::Duration;

use crate::lua::{Limits, machine_bytes};

/// How long a script may take in the sandbox unless the command line says otherwise.
const HOUR: Duration = Duration::from_secs(3600);
/// Less than this the program itself would not start in.
const LEAST: u64 = 32 << 20;

/// The limits that the command line asks for; in the sandbox there always are some.
pub(super) fn of(sandbox: bool, memory: Option<usize>, time: Option<Duration>) -> Limits {
    Limits {
        memory: memory.or_else(|| sandbox.then(|| machine_bytes() / 2)),
        time: time.or(sandbox.then_some(HOUR)),
    }
}

/// `512MiB`, `4GB`, or a number of bytes.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let bytes = text.parse::<bytesize::ByteSize>()?.as_u64();
    match bytes {
        LEAST.. => usize::try_from(bytes).map_err(|error| error.to_string()),
        _ => Err(format!("the program itself needs {}", bytesize::ByteSize::b(LEAST))),
    }
}

/// `90s`, `10m`, `1h 30m`, or a number of seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().map(|seconds| {
        Duration::try_from_secs_f64(seconds).map_err(|_| "a duration is positive and finite".to_owned())
    });
    let parsed =
        seconds.unwrap_or_else(|| humantime::parse_duration(text).map_err(|error| error.to_string()));
    match parsed? {
        Duration::ZERO => Err("no script ends in no time".to_owned()),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_read_as_people_write_them() {
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert_eq!(size("2 GB"), Ok(2_000_000_000));
        assert_eq!(size("104857600"), Ok(100 << 20));
        assert!(size("1KiB").is_err() && size("-1").is_err() && size("many").is_err());
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert!(duration("0").is_err() && duration("-1").is_err() && duration("soon").is_err());
    }

    #[test]
    fn the_sandbox_always_has_limits() {
        let none = of(false, None, None);
        assert!(none.memory.is_none() && none.time.is_none());
        let some = of(true, None, None);
        assert!(some.memory.is_some() && some.time == Some(HOUR));
        assert_eq!(of(true, Some(7), Some(HOUR * 2)).memory, Some(7));
    }
}
