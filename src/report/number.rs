//! Numbers as readers of tables and sentences want them.

/// Four significant digits: `0.2383`, `41.40`, `1,204`, `1.230e-5`; whole numbers from 1000 on.
pub fn in_table(value: f64) -> String {
    significant(value, 4)
}

/// Three significant digits, for sentences: `0.238`, `41.4`.
pub fn in_prose(value: f64) -> String {
    significant(value, 3)
}

/// Without trailing zeros, for ticks: `0.05`, `2`.
pub fn trimmed(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// A count with commas between thousands: `16,384`.
pub fn count(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = if value < 0 { "-".to_string() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn significant(value: f64, digits: i32) -> String {
    if value.is_nan() {
        return "not a number".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "∞".into() } else { "-∞".into() };
    }
    if value == 0.0 {
        return "0".into();
    }
    let scientific = format!("{value:.*e}", (digits - 1) as usize);
    // Of the rounded value: 9.9996 has the exponent of 10.00.
    let exponent = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    match exponent {
        ..=-5 | 15.. => scientific,
        _ if exponent + 1 >= digits => count(value.round() as i64),
        _ => format!("{value:.*}", (digits - 1 - exponent) as usize),
    }
}

/// `0.8 s`, `12 min 30 s`, `1,234 h 5 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as i64;
    match whole {
        ..10 => format!("{:.1} s", seconds.max(0.0)),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", count(whole / 3600), whole % 3600 / 60),
    }
}

/// `1 row`, `2 rows`.
pub fn plural(number: usize, noun: &str) -> String {
    format!("{} {noun}{}", count(number as i64), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_significant_digits() {
        for (value, text) in [
            (0.238_26, "0.2383"),
            (41.4, "41.40"),
            (9.999_96, "10.00"),
            (1204.4, "1,204"),
            (16384.0, "16,384"),
            (0.000_123_45, "0.0001234"),
            (1.23e-5, "1.230e-5"),
            (-2.0, "-2.000"),
            (0.0, "0"),
        ] {
            assert_eq!(in_table(value), text);
        }
        assert_eq!(in_prose(0.238_26), "0.238");
        assert_eq!(in_table(f64::NAN), "not a number");
    }

    #[test]
    fn counts_have_commas() {
        assert_eq!(count(-1_234_567), "-1,234,567");
        assert_eq!(count(999), "999");
        assert_eq!(plural(1, "run"), "1 run");
        assert_eq!(plural(1200, "row"), "1,200 rows");
    }

    #[test]
    fn durations() {
        let shown = [0.84, 42.4, 750.0, 4_442_700.0].map(duration);
        assert_eq!(shown, ["0.8 s", "42 s", "12 min 30 s", "1,234 h 5 min"]);
    }
}
