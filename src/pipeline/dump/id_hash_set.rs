//! A set of ids that may be large: of each 16 bytes, from hashes under keys that nobody knows.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

/// Takes the first half of what is a hash already.
#[derive(Debug, Default)]
struct IdHash(u64);

impl Hasher for IdHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

/// The ids that were put in, as hashes of 128 bits.
#[derive(Debug, Default)]
pub struct IdHashSet {
    hashes: HashSet<u128, BuildHasherDefault<IdHash>>,
    keys: [RandomState; 2],
}

impl IdHashSet {
    fn hash(&self, id: &str) -> u128 {
        let [first, second] = &self.keys;
        u128::from(first.hash_one(id)) << 64 | u128::from(second.hash_one(id))
    }

    /// Adds an id.
    pub fn insert(&mut self, id: &str) {
        let hash = self.hash(id);
        self.hashes.insert(hash);
    }

    /// Whether an id was added.
    pub fn contains(&self, id: &str) -> bool {
        self.hashes.contains(&self.hash(id))
    }

    /// Number of distinct ids.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::IdHashSet;

    #[test]
    fn what_was_put_in_is_there_and_nothing_else() {
        let mut ids = IdHashSet::default();
        (0..10_000).for_each(|number| ids.insert(&format!("id-{number}")));
        assert_eq!(ids.len(), 10_000);
        assert!((0..10_000).all(|number| ids.contains(&format!("id-{number}"))));
        assert!(!(10_000..20_000).any(|number| ids.contains(&format!("id-{number}"))));
    }
}
