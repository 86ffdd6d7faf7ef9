//! Pages that the program writes: files that need nothing from elsewhere.

use base64::Engine;
use std::fs;
use std::path::Path;

/// A page that was found to be whole.
pub struct Page {
    /// Its text, with slashes as they are.
    pub text: String,
    /// Pictures in it.
    pub pictures: usize,
}

impl Page {
    /// Reads a page: it names no other address and leaves nothing of its template, and every picture in it can be drawn.
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.starts_with("<!doctype html>") && text.trim_end().ends_with("</html>"));
        for part in ["http:", "https:", "src=", "@import", "rel=\"stylesheet\"", "{{", "{%"] {
            assert!(!text.contains(part), "{}: {part}", path.display());
        }
        let pictures = text.split("base64,").skip(1).map(|picture| picture.split(')').next().unwrap());
        let draw = |picture: &str| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(picture).unwrap();
            image::load_from_memory(&bytes).unwrap()
        };
        let pictures = pictures.map(draw).count();
        for part in ["To reproduce", "versions", concat!("mlcsc ", env!("CARGO_PKG_VERSION"))] {
            assert!(text.contains(part), "{}: no {part}", path.display());
        }
        // Templates write it so, lest it end a tag.
        Self { text: text.replace("&#x2f;", "/"), pictures }
    }

    /// How often something is on it.
    pub fn count(&self, part: &str) -> usize {
        self.text.matches(part).count()
    }

    /// Asserts that all of these are on it.
    pub fn holds(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.text.contains(part), "no {part} on the page");
        }
    }
}
