//! A map from the keys of one shape: made once, asked for every member of every resource, so made for short keys. Two
//! words and the length say all of a key of up to 16 bytes, which most have.

/// A key's first and last bytes. Below 16 bytes they overlap and, with the length, tell any two keys apart.
fn words(key: &[u8]) -> (u64, u64) {
    if let (Some(first), Some(last)) = (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        (u64::from_le_bytes(*first), u64::from_le_bytes(*last))
    } else if let (Some(first), Some(last)) = (key.first_chunk::<4>(), key.last_chunk::<4>()) {
        (u64::from(u32::from_le_bytes(*first)), u64::from(u32::from_le_bytes(*last)))
    } else if let (Some(&first), Some(&last)) = (key.first(), key.last()) {
        (u64::from(first), u64::from(key[key.len() / 2]) << 8 | u64::from(last))
    } else {
        (0, 0)
    }
}

#[derive(Debug, Clone)]
struct Slot<T> {
    words: (u64, u64),
    key: Box<[u8]>,
    value: T,
}

/// The map; a power of two of slots, at most half of them taken.
#[derive(Debug)]
pub struct Keys<T> {
    slots: Vec<Option<Slot<T>>>,
    len: usize,
}

impl<T> Default for Keys<T> {
    fn default() -> Keys<T> {
        Keys { slots: Vec::new(), len: 0 }
    }
}

impl<T: Copy> Keys<T> {
    /// Sets a key's value.
    pub fn insert(&mut self, key: &[u8], value: T) {
        if 2 * (self.len + 1) > self.slots.len() {
            let wider = (2 * self.slots.len()).max(8);
            let before = std::mem::replace(&mut self.slots, (0..wider).map(|_| None).collect());
            self.len = 0;
            before.into_iter().flatten().for_each(|slot| self.insert(&slot.key, slot.value));
        }
        let words = words(key);
        let place = self.place(words, key);
        self.len += usize::from(self.slots[place].is_none());
        self.slots[place] = Some(Slot { words, key: key.into(), value });
    }

    /// A key's value.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<T> {
        if self.slots.is_empty() {
            return None;
        }
        self.slots[self.place(words(key), key)].as_ref().map(|slot| slot.value)
    }

    /// The slot of a key, or the free one where it would go.
    #[inline]
    fn place(&self, words: (u64, u64), key: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mixed = (words.0 ^ words.1.rotate_left(29) ^ key.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut place = (mixed >> 40) as usize & mask;
        loop {
            match &self.slots[place] {
                Some(slot) if slot.words == words && slot.key.len() == key.len() && (key.len() <= 16 || *slot.key == *key) => return place,
                Some(_) => place = (place + 1) & mask,
                None => return place,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_and_no_other() {
        let alphabet = b"abcxyz0";
        let mut keys = Keys::default();
        let mut state = 1u64;
        let mut all = std::collections::HashMap::new();
        for number in 0..5000u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let len = (state >> 58) as usize % 24;
            let key: Vec<u8> = (0..len).map(|i| alphabet[(state >> (i % 16 * 3)) as usize % alphabet.len()]).collect();
            keys.insert(&key, number);
            all.insert(key, number);
        }
        assert_eq!(keys.len, all.len());
        for (key, number) in &all {
            assert_eq!(keys.get(key), Some(*number));
            let mut other = key.clone();
            other.push(b'q');
            assert_eq!(keys.get(&other), None);
            for index in 0..key.len() {
                let mut other = key.clone();
                other[index] = b'q';
                assert_eq!(keys.get(&other), None, "{other:?}");
            }
        }
        assert_eq!(Keys::<u8>::default().get(b""), None);
    }
}
