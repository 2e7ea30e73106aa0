//! What a file is that is no checkpoint, in words for a message.

use std::path::Path;

/// What the bytes are, and the way out, if they are anything that is mistaken for a checkpoint.
pub fn recognise(path: &Path, bytes: &[u8]) -> Option<&'static str> {
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    let text: String = bytes.iter().take(256).map(|&b| char::from(b).to_ascii_lowercase()).collect();
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let onnx = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"));
    Some(match bytes {
        [] => "an empty file",
        _ if text.starts_with("version https://git-lfs") => {
            "a pointer of Git LFS in place of the file: `git lfs pull` fetches it"
        }
        _ if text.starts_with("<!doctype") || text.starts_with("<html") || text.starts_with("<head") => {
            "an HTML page, as sites send it in place of a file: download it again"
        }
        _ if text.starts_with("<?xml") => "XML, as sites send it in place of a file: download it again",
        _ if text.starts_with(['{', '[']) && !text.contains('\0') => {
            "JSON, perhaps the index of a checkpoint in several files"
        }
        _ if starts(b"GGUF") => "a GGUF file",
        _ if starts(b"\x89HDF\r\n\x1a\n") => "an HDF5 file, as Keras writes it",
        _ if starts(&[0x1f, 0x8b]) => "a gzip archive: unpack it",
        _ if starts(b"\xfd7zXZ") || starts(&[0x28, 0xb5, 0x2f, 0xfd]) || starts(b"7z\xbc\xaf") || starts(b"BZh") => {
            "a compressed archive: unpack it"
        }
        _ if bytes.get(257..262) == Some(b"ustar") => "a tar archive: unpack it",
        _ if starts(b"\x93NUMPY") => "a NumPy array",
        // Version of the format, then a length-delimited field.
        [0x08, 1..=20, 0x12 | 0x1a | 0x22 | 0x2a | 0x3a | 0x42, ..] => "an ONNX graph: expected the network's tensors",
        _ if onnx => "an ONNX graph: expected the network's tensors",
        [0x80, 2..=5, ..] => "a Python pickle that PyTorch did not write",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mistaken_for_a_checkpoint_is_named() {
        for (bytes, part) in [
            (&b""[..], "empty"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "Git LFS"),
            (b"\n <!DOCTYPE html><html>", "HTML"),
            (b"\x08\x08\x12\x07pytorch", "ONNX"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"\x89HDF\r\n\x1a\n\0", "HDF5"),
            (b"{\"metadata\": {}", "JSON"),
            (b"\x80\x04\x95", "pickle"),
        ] {
            assert!(recognise("x.safetensors".as_ref(), bytes).unwrap().contains(part), "{part}");
        }
        assert_eq!(recognise("x.safetensors".as_ref(), b"\x10\0\0\0\0\0\0\0{}"), None);
    }
}
