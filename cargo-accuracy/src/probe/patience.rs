//! How long a server is waited for that is busy, loads its model, or fails for now.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

/// Waits of all requests together. Those that wait at once count once.
pub struct Patience {
    limit: Duration,
    waited: Mutex<Waited>,
}

#[derive(Default)]
struct Waited {
    total: Duration,
    waiting: usize,
    since: Option<Instant>,
}

impl Waited {
    fn now(&self) -> Duration {
        self.total + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Patience {
    pub fn new(limit: Duration) -> Patience {
        Patience { limit, waited: Mutex::default() }
    }

    /// Seconds that were waited in all.
    pub fn seconds(&self) -> u64 {
        self.lock().now().as_secs_f64().round() as u64
    }

    /// Waits. Returns false, at once, where that is more than what is left.
    pub fn wait(&self, time: Duration) -> bool {
        {
            let mut waited = self.lock();
            if waited.now() + time > self.limit {
                return false;
            }
            waited.waiting += 1;
            waited.since.get_or_insert_with(Instant::now);
        }
        std::thread::sleep(time);
        let mut waited = self.lock();
        waited.waiting -= 1;
        if waited.waiting == 0 {
            waited.total = waited.now();
            waited.since = None;
        }
        true
    }

    /// Whether this is more than could ever be waited.
    pub fn exceeds(&self, time: Duration) -> bool {
        time > self.limit
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waited> {
        self.waited.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What `retry-after` says: seconds, or a date.
pub fn retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return (0.0..1e9).contains(&seconds).then(|| Duration::from_secs_f64(seconds));
    }
    let at = Duration::from_secs(date(value)?);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(at.saturating_sub(now))
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`, the form that HTTP wants.
fn date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.split_once(", ")?.1.split(' ');
    let day: u64 = parts.next()?.parse().ok().filter(|d| (1..=31).contains(d))?;
    let name = parts.next()?;
    let month = MONTHS.iter().position(|m| *m == name)? as u64 + 1;
    let year: u64 = parts.next()?.parse().ok().filter(|y| (1970..=9999).contains(y))?;
    let mut clock = parts.next()?.split(':').map(|n| n.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if parts.next() != Some("GMT") {
        return None;
    }
    // Years from March on, so that a leap day is a year's last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    // 1970-01-01 in the same count.
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read() {
        assert_eq!(date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(date("Thu, 29 Feb 2024 00:00:00 GMT"), Some(1_709_164_800));
        assert_eq!(retry_after(" 1.5 "), Some(Duration::from_millis(1500)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        for bad in ["", "soon", "-1", "Sun, 06 Nov 1994", "Sun, 06 Nuv 1994 08:49:37 GMT", "NaN"] {
            assert_eq!(retry_after(bad), None, "{bad}");
        }
    }

    #[test]
    fn patience_ends_and_waits_at_once_count_once() {
        let patience = Patience::new(Duration::from_millis(400));
        std::thread::scope(|scope| {
            let wait = || assert!(patience.wait(Duration::from_millis(200)));
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(wait)).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        assert!(!patience.wait(Duration::from_millis(300)));
        assert!(patience.exceeds(Duration::from_secs(1)));
    }
}
