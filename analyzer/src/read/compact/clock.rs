//! Stamps -> time.

use super::chunks::Place;

/// How often the time is told: a thousand times a second.
const STEP: f64 = 1e6;

/// Nanoseconds per tick of a clock that can be: 100 MHz to 20 GHz.
const RATES: std::ops::Range<f64> = 0.05..10.0;

/// Tells the time of a stamp: headers of chunks state both.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// Nanoseconds per tick; `None` where the trace states too few times.
    rate: Option<f64>,
    /// Stamp and time of the last header.
    anchor: (u64, u64),
    /// Last time that was told.
    told: Option<u64>,
    /// First stamp at which it is told again.
    next: u64,
    /// The newest stamp that was asked for.
    last: u64,
}

impl Clock {
    /// `readings` are stamps and their times that stand elsewhere.
    pub(super) fn new(places: &[Place], readings: &[(u64, u64)]) -> Clock {
        let stated = || places.iter().map(|place| (place.stamp, place.time));
        let points = || stated().chain(readings.iter().copied());
        let rate = points()
            .min()
            .zip(points().max())
            .map(|(first, last)| last.1.saturating_sub(first.1) as f64 / (last.0 - first.0) as f64);
        // From two that are too close, nothing can be told.
        let rate = rate.filter(|rate| RATES.contains(rate));
        Clock { rate, next: u64::MAX, ..Clock::default() }
    }

    /// A header states `time` for `stamp`. The time, if it has not been told yet.
    pub(super) fn state(&mut self, stamp: u64, time: u64) -> Option<u64> {
        self.anchor = (stamp, time);
        self.tell(stamp, time)
    }

    /// The time of `stamp`, when it is due.
    #[inline(always)]
    pub(super) fn at(&mut self, stamp: u64) -> Option<u64> {
        self.last = stamp;
        if stamp < self.next { None } else { self.interpolate(stamp) }
    }

    /// The time of the last stamp, if it has not been told yet.
    pub(super) fn end(&mut self) -> Option<u64> {
        if self.next == u64::MAX { None } else { self.interpolate(self.last) }
    }

    #[cold]
    fn interpolate(&mut self, stamp: u64) -> Option<u64> {
        let (from, time) = self.anchor;
        let further = stamp.saturating_sub(from) as f64 * self.rate.unwrap_or(0.0);
        self.tell(stamp, time.saturating_add(further as u64))
    }

    fn tell(&mut self, stamp: u64, time: u64) -> Option<u64> {
        // Without a rate, what comes later would seem to be at the same time.
        self.next = stamp.saturating_add((STEP / self.rate?) as u64);
        // Headers of several threads may contradict each other by a little.
        if self.told.is_some_and(|told| told >= time) {
            return None;
        }
        self.told = Some(time);
        Some(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(points: &[(u64, u64)]) -> Clock {
        let mut places = super::super::chunks::places_at(points);
        places.rotate_left(1);
        Clock::new(&places, &[])
    }

    #[test]
    fn the_time_between_two_headers_goes_on_evenly() {
        let mut clock = clock(&[(1_000, 0), (30_001_000, 10_000_000)]);
        assert_eq!(clock.state(1_000, 0), Some(0));
        assert_eq!(clock.at(2_000_000), None);
        assert_eq!(clock.at(6_001_000), Some(2_000_000));
        assert_eq!(clock.at(6_002_000), None);
        assert_eq!(clock.state(30_001_000, 10_000_000), Some(10_000_000));
        assert_eq!(clock.state(30_000_900, 9_999_999), None, "it does not go back");
        assert_eq!(clock.at(60_001_000), Some(20_000_032));
    }

    #[test]
    fn of_one_header_nothing_is_told_without_another_reading() {
        let mut clock = clock(&[(1_000, 5)]);
        assert_eq!(clock.state(1_000, 5), None);
        assert_eq!((clock.at(u64::MAX - 1), clock.end()), (None, None));
        let places = super::super::chunks::places_at(&[(1_000, 5)]);
        let mut clock = Clock::new(&places, &[(30_001_000, 10_000_005)]);
        assert_eq!(clock.state(1_000, 5), Some(5));
        assert_eq!(clock.at(6_001_000), Some(2_000_005));
        assert_eq!(clock.at(6_301_000), None);
        assert_eq!(clock.end(), Some(2_100_005));
    }
}
