//! Sizes and times, as docker prints them.

/// Bytes as docker prints them: `12.3MB`.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return match unit {
                "B" => format!("{bytes}B"),
                _ if value < 10.0 => format!("{value:.2}{unit}"),
                _ => format!("{value:.1}{unit}"),
            };
        }
        value /= 1000.0;
    }
    format!("{value:.2}TB")
}

/// How long ago a time stamp was, in docker's words.
pub(crate) fn ago(time: &str) -> String {
    let Ok(then) = time.parse::<jiff::Timestamp>() else {
        return String::new();
    };
    let seconds = jiff::Timestamp::now().duration_since(then).as_secs().max(0);
    let count = |amount: i64, unit: &str| format!("{amount} {unit}{}", if amount == 1 { "" } else { "s" });
    match seconds {
        0 => "Less than a second".to_owned(),
        1..60 => count(seconds, "second"),
        60..120 => "About a minute".to_owned(),
        120..3600 => count(seconds / 60, "minute"),
        3600..7200 => "About an hour".to_owned(),
        7200..172_800 => count(seconds / 3600, "hour"),
        172_800..1_209_600 => count(seconds / 86_400, "day"),
        1_209_600..5_184_000 => count(seconds / 604_800, "week"),
        5_184_000..63_072_000 => count(seconds / 2_592_000, "month"),
        _ => count(seconds / 31_536_000, "year"),
    }
}
