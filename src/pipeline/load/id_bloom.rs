//! Which ids a load has stored so far, in bounded memory: "surely not" or "perhaps". A Bloom filter that grows with the load.

use rustc_hash::FxHasher;
use std::hash::Hasher;

/// Bits of the first filter, and how much larger each next one is.
const FIRST: usize = 1 << 19;
const GROWTH: usize = 8;
/// Bits of the largest filter: 32 MiB, for 11 million ids. Past it answers of "perhaps" become more, never wrong.
const LARGEST: usize = 1 << 28;
/// Bits for one id: one in 20,000 answers is a "perhaps" without cause.
const BITS_AN_ID: usize = 24;
const PROBES: u32 = 8;

/// Bloom filters of ids, each twice as large as the one before.
#[derive(Debug, Default)]
pub struct IdBloomFilter {
    filters: Vec<Filter>,
}

#[derive(Debug)]
struct Filter {
    words: Vec<u64>,
    ids: usize,
}

impl Filter {
    fn new(bits: usize) -> Filter {
        Filter { words: vec![0; bits / 64], ids: 0 }
    }

    fn bits(&self) -> usize {
        self.words.len() * 64
    }

    fn places(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let (bits, step) = (self.bits(), (hash >> 32) | 1);
        (0..u64::from(PROBES)).map(move |probe| (hash.wrapping_add(probe.wrapping_mul(step)) % bits as u64) as usize)
    }

    fn contains(&self, hash: u64) -> bool {
        self.places(hash).all(|place| self.words[place / 64] & (1 << (place % 64)) != 0)
    }

    fn insert(&mut self, hash: u64) {
        for place in self.places(hash) {
            self.words[place / 64] |= 1 << (place % 64);
        }
        self.ids += 1;
    }
}

impl IdBloomFilter {
    /// Whether an id was perhaps noted.
    pub fn contains(&self, hash: u64) -> bool {
        self.filters.iter().any(|filter| filter.contains(hash))
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.filters.truncate(1);
        if let Some(first) = self.filters.first_mut()
            && first.ids > 0
        {
            *first = Filter::new(first.bits());
        }
    }

    /// Notes an id by its `hash`. True when it was perhaps noted before.
    pub fn insert(&mut self, hash: u64) -> bool {
        if self.contains(hash) {
            return true;
        }
        let next = match self.filters.last() {
            None => Some(FIRST),
            Some(last) if last.ids * BITS_AN_ID >= last.bits() && last.bits() < LARGEST => Some(last.bits() * GROWTH),
            Some(_) => None,
        };
        if let Some(bits) = next {
            self.filters.push(Filter::new(bits.min(LARGEST)));
        }
        if let Some(last) = self.filters.last_mut() {
            last.insert(hash);
        }
        false
    }
}

/// What an id is noted by.
pub fn hash(id: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(id);
    // Fx leaves the low bits weak: finish as murmur3 does.
    let mut hash = hasher.finish();
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_never_forgotten_and_seldom_imagined() {
        let mut seen = IdBloomFilter::default();
        let mut imagined = 0;
        for number in 0..200_000 {
            imagined += usize::from(seen.insert(hash(format!("id-{number}").as_bytes())));
        }
        assert!(imagined < 1000, "{imagined}");
        for number in 0..200_000 {
            assert!(seen.insert(hash(format!("id-{number}").as_bytes())));
        }
    }
}
