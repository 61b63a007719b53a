//! What many hypotheses share is computed once, by whichever thread comes first.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Values by what they were made for.
pub struct Memo<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Memo(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Memo<K, V> {
    /// The value of `key`. No lock is held while it is made: two threads may make the same.
    pub fn of(&self, key: K, make: impl FnOnce() -> V) -> V {
        let known = self.entries().get(&key).cloned();
        known.unwrap_or_else(|| {
            let value = make();
            self.entries().insert(key, value.clone());
            value
        })
    }

    /// Forgets all where there are as many as `most`.
    pub fn limit(&self, most: usize) {
        let mut entries = self.entries();
        if entries.len() >= most {
            entries.clear();
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<K, V>> {
        // Nothing that panics runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
