//! The file that Wireshark and tcpdump read: pcap, draft-ietf-opsawg-pcap, with times in microseconds.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

/// Largest file; after that frames are counted and not kept.
const MAX_BYTES: u64 = 256 << 20;

/// Most of one frame that is kept, bytes.
pub(super) const SNAP_LENGTH: usize = 2048;

/// Writes frames.
pub(super) struct Pcap {
    file: BufWriter<File>,
    written: u64,
}

impl Pcap {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::new(File::create(path)?);
        let mut header = Vec::with_capacity(24);
        header.extend(0xa1b2_c3d4_u32.to_le_bytes());
        header.extend(2_u16.to_le_bytes());
        header.extend(4_u16.to_le_bytes());
        header.extend([0; 8]);
        header.extend((SNAP_LENGTH as u32).to_le_bytes());
        // Link type: Ethernet.
        header.extend(1_u32.to_le_bytes());
        file.write_all(&header)?;
        file.flush()?;
        Ok(Self { file, written: 24 })
    }

    /// `time`: since 1970. `length`: of the whole frame, of which `frame` is the beginning.
    pub(super) fn write(&mut self, time: Duration, frame: &[u8], length: usize) -> io::Result<()> {
        let frame = &frame[..frame.len().min(SNAP_LENGTH)];
        let size = 16 + frame.len() as u64;
        if self.written + size > MAX_BYTES {
            return Ok(());
        }
        for field in [
            time.as_secs() as u32,
            time.subsec_micros(),
            frame.len() as u32,
            length as u32,
        ] {
            self.file.write_all(&field.to_le_bytes())?;
        }
        self.file.write_all(frame)?;
        self.written += size;
        Ok(())
    }

    /// Makes what was written visible to readers.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
