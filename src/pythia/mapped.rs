//! Memory of mapped files.

/// Gives back the pages of a mapped file that lie within `bytes`: they hold what the file holds, and count as the program's memory
/// until somebody needs the room. Reading them again reads the file again.
#[cfg(unix)]
pub fn release(bytes: &[u8]) {
    // SAFETY: asks for a number.
    let Ok(page) = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }) else { return };
    let range = bytes.as_ptr_range();
    let (first, end) = ((range.start as usize).next_multiple_of(page), range.end as usize / page * page);
    if first < end {
        // SAFETY: whole pages inside of a file's mapping that nobody writes to, so their contents come back when they are read.
        // It is a hint, and nothing is lost where it is refused.
        unsafe { libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_DONTNEED) };
    }
}

/// Leaves the pages to the system.
#[cfg(not(unix))]
pub fn release(_: &[u8]) {}

#[cfg(all(test, unix))]
mod tests {
    #[test]
    fn released_pages_read_the_same() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("numbers");
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes)?;
        // SAFETY: nobody else knows the file.
        let mapped = unsafe { memmap2::Mmap::map(&std::fs::File::open(&path)?)? };
        assert_eq!(&mapped[..], &bytes[..]);
        super::release(&mapped[5000..90_000]);
        super::release(&mapped[3..7]);
        assert_eq!(&mapped[..], &bytes[..]);
        Ok(())
    }
}
