//! Named ranges for Nsight Systems; without its library (libnvToolsExt) they cost nothing.

use std::ffi::CString;
use std::marker::PhantomData;
use std::sync::OnceLock;

use cudarc::nvtx::sys;

/// Ends its range when dropped, in the thread that opened it.
#[must_use = "the range ends when this is dropped"]
pub struct Range {
    open: bool,
    /// Ranges nest per thread: this must not leave its own.
    thread: PhantomData<*const ()>,
}

/// Opens a range.
pub fn range(name: &str) -> Range {
    let name = if available() { CString::new(name).ok() } else { None };
    if let Some(name) = &name {
        // SAFETY: the library has this function, and copies the name.
        unsafe { sys::nvtxRangePushA(name.as_ptr()) };
    }
    Range { open: name.is_some(), thread: PhantomData }
}

impl Drop for Range {
    fn drop(&mut self) {
        if self.open {
            // SAFETY: the library has this function; one range of this thread is open.
            unsafe { sys::nvtxRangePop() };
        }
    }
}

/// Whether the library and both functions are there; cudarc would panic where they are not.
fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        // SAFETY: loads the library if it is there; symbols are looked up but not called.
        let present = unsafe { sys::is_culib_present() };
        // SAFETY: as above.
        let has = |name: &str| unsafe { sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()).is_ok() };
        present && has("nvtxRangePushA") && has("nvtxRangePop")
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn ranges_nest_with_or_without_the_library() {
        let _outer = super::range("outer");
        let _inner = super::range("in\0ner");
    }
}
