//! Numbers and bytes as messages show them.

/// A whole number with commas between thousands.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and its noun: `1 signal`, `2 signals`, `3 classes`, `4 batches`.
pub fn counted(count: usize, noun: &str) -> String {
    let ending = match count {
        1 => "",
        _ if noun.ends_with('s') || noun.ends_with("tch") => "es",
        _ => "s",
    };
    format!("{} {noun}{ending}", grouped(count as u64))
}

/// The first bytes of an unexpected file: as text in quotes, where it is one, else in hexadecimal.
pub fn beginning(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(8)];
    if let Some((_, kind)) = OTHERS.iter().find(|(start, _)| bytes.starts_with(*start)) {
        return format!("{} ({kind})", shown(&bytes[..4]));
    }
    shown(bytes)
}

/// Files that people have and that are of no use here, by their first four bytes.
const OTHERS: [(&[u8; 4], &str); 6] = [
    (b"PK\x03\x04", "a zip archive, as torch.save and np.savez write; np.save and safetensors write what is read"),
    (b"GIF8", "a GIF"),
    (b"\x89HDF", "HDF5"),
    (b"%PDF", "a PDF"),
    (b"fLaC", "FLAC"),
    (b"OggS", "Ogg"),
];

fn shown(bytes: &[u8]) -> String {
    let printable = |byte: &u8| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    match bytes.iter().all(printable) {
        true => format!("{:?}", String::from_utf8_lossy(bytes)),
        false => format!("0x{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_their_nouns() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        let texts = [counted(0, "signal"), counted(1, "signal"), counted(1, "class"), counted(2000, "class")];
        assert_eq!(texts, ["0 signals", "1 signal", "1 class", "2,000 classes"]);
    }

    #[test]
    fn beginnings_of_files() {
        assert_eq!(beginning(b"# text\nand more"), r##""# text\na""##);
        assert_eq!(beginning(b"\x1f\x8b\x08"), "0x1f8b08");
        assert_eq!(beginning("ä".as_bytes()), "0xc3a4");
        assert_eq!(beginning(b"GIF89a\x10\0"), r#""GIF8" (a GIF)"#);
        assert_eq!(beginning(b""), r#""""#);
    }
}
