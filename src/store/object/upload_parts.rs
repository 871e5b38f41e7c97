//! The parts in which large objects are uploaded.

/// Bytes of a part: the smallest that S3 takes is 5 MiB. With every thousandth part they are doubled, since an upload has 10,000.
const SIZE: usize = 8 << 20;
const OF_A_SIZE: usize = 1000;

/// Bytes that are gathered until they are a part.
#[derive(Debug, Default)]
pub struct Parts {
    buffer: Vec<u8>,
    /// That were full.
    count: usize,
}

impl Parts {
    fn size(&self) -> usize {
        SIZE << (self.count / OF_A_SIZE)
    }

    /// Takes of the bytes what is missing of a part: the part when it is full, else all are taken.
    pub fn fill(&mut self, bytes: &mut &[u8]) -> Option<Vec<u8>> {
        let (now, later) = bytes.split_at(bytes.len().min(self.size() - self.buffer.len()));
        self.buffer.extend_from_slice(now);
        *bytes = later;
        if self.buffer.len() < self.size() {
            return None;
        }
        self.count += 1;
        Some(std::mem::take(&mut self.buffer))
    }

    /// What is left when nothing more comes.
    pub fn last(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }
}
