//! How many objects are under way at once: fewer where requests ran out of time, and as many as are allowed again once
//! they succeed. What shares a slow link with others takes as much longer.

use std::sync::{Mutex, PoisonError};

/// So many successes in a row let one more be under way.
const GROWS_AFTER: usize = 8;

/// Between one and the most that is allowed.
#[derive(Debug)]
pub(super) struct Window {
    most: usize,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    objects: usize,
    /// Since it changed last.
    successes: usize,
}

impl Window {
    pub(super) fn new(most: usize) -> Self {
        let most = most.max(1);
        Self { most, now: Mutex::new(Now { objects: most, successes: 0 }) }
    }

    /// How many may be under way now.
    pub(super) fn objects(&self) -> usize {
        self.with(|now| now.objects)
    }

    /// How many may share the link before a request that begins now is over.
    pub(super) fn sharing(&self) -> u32 {
        u32::try_from((self.objects() + 1).min(self.most)).unwrap_or(u32::MAX)
    }

    /// A request was answered in time.
    pub(super) fn succeeded(&self) {
        self.with(|now| {
            now.successes += 1;
            if now.successes >= GROWS_AFTER {
                *now = Now { objects: (now.objects + 1).min(self.most), successes: 0 };
            }
        });
    }

    /// One or more of those that were under way together were not.
    pub(super) fn timed_out(&self) {
        self.with(|now| *now = Now { objects: (now.objects / 2).max(1), successes: 0 });
    }

    /// Held for a few instructions, none of which can panic half-way.
    fn with<T>(&self, change: impl FnOnce(&mut Now) -> T) -> T {
        change(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_halves_and_grows_back() {
        let window = Window::new(4);
        assert_eq!((window.objects(), window.sharing()), (4, 4));
        window.timed_out();
        assert_eq!((window.objects(), window.sharing()), (2, 3));
        window.timed_out();
        window.timed_out();
        assert_eq!(window.objects(), 1);
        (0..GROWS_AFTER).for_each(|_| window.succeeded());
        assert_eq!(window.objects(), 2);
        (0..10 * GROWS_AFTER).for_each(|_| window.succeeded());
        assert_eq!(window.objects(), 4);
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(most in 0..20_usize, steps in prop::collection::vec(any::<bool>(), 0..200)) {
            let window = Window::new(most);
            for is_success in steps {
                if is_success { window.succeeded() } else { window.timed_out() }
                prop_assert!((1..=most.max(1)).contains(&window.objects()));
            }
        }
    }
}
