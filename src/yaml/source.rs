//! A text with a name, and places in it.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::OnceLock;

/// A range of bytes in a text.
pub type Span = Range<usize>;

/// A text that was read from somewhere.
#[derive(Debug)]
pub struct Source {
    /// The file's name as it was given, or `<stdin>`.
    pub name: String,
    /// What is in it, without a byte order mark.
    pub text: String,
    index: OnceLock<Box<Index>>,
}

/// By what a place is found.
#[derive(Debug)]
struct Index {
    line_starts: Vec<usize>,
    /// How many characters begin before each [`STRIDE`]th byte: a file of many megabytes may be one
    /// line, and thousands of its columns asked for.
    characters: Vec<usize>,
}

/// How many bytes are counted at most to tell a column.
const STRIDE: usize = 4096;

/// A line and a column, both from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// A range of a source.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The source.
    pub source: &'a Source,
    /// Where in it.
    pub span: Span,
}

/// Something that is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub span: Span,
    /// What, in one line.
    pub message: String,
    /// What to do about it, where that is known.
    pub help: Option<String>,
}

impl Problem {
    /// A problem nothing is advised for.
    pub fn new(span: Span, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), help: None }
    }

    /// A file that could not be opened, the reason as a person says it.
    pub fn not_opened(error: &io::Error) -> Self {
        let message = match error.kind() {
            io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
            io::ErrorKind::PermissionDenied => "reading it is not permitted".to_owned(),
            _ => format!("it cannot be read: {error}"),
        };
        Self::new(0..0, message)
    }

    /// The same problem with advice.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

impl Source {
    /// A text under a name.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into(), index: OnceLock::new() }
    }

    /// The bytes of a file as text, and what is wrong with them if they are none: then the text is
    /// what can be shown of it. UTF-8, and UTF-16 behind its byte order mark, which is what a shell
    /// on Windows writes when output is redirected and what `kubectl` reads too.
    pub fn decode(name: impl Into<String>, bytes: Vec<u8>) -> (Self, Option<Problem>) {
        let text = match bytes.as_slice() {
            [0xFF, 0xFE, rest @ ..] => utf16(rest, u16::from_le_bytes),
            [0xFE, 0xFF, rest @ ..] => utf16(rest, u16::from_be_bytes),
            _ => String::from_utf8(bytes).map_err(|error| {
                let at = error.utf8_error().valid_up_to();
                (String::from_utf8_lossy(error.as_bytes()).into_owned(), at)
            }),
        };
        match text {
            Ok(text) => {
                let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
                (Self::new(name, text), None)
            }
            Err((lossy, at)) => {
                let problem = Problem::new(at..at, "this is not text in UTF-8")
                    .help("Kubernetes manifests are UTF-8; convert the file, or leave it out");
                (Self::new(name, lossy), Some(problem))
            }
        }
    }

    /// The line and column of a byte.
    pub fn position(&self, offset: usize) -> Position {
        let starts = self.line_starts();
        let line = starts.partition_point(|start| *start <= offset).max(1);
        let start = starts.get(line - 1).copied().unwrap_or_default();
        Position { line, column: self.characters_before(offset).saturating_sub(self.characters_before(start)) + 1 }
    }

    /// How many characters begin before a byte.
    fn characters_before(&self, offset: usize) -> usize {
        let (bytes, strides) = (self.text.as_bytes(), &self.index().characters);
        let offset = offset.min(bytes.len());
        // The last stride has its end in it.
        let stride = (offset / STRIDE).min(strides.len().saturating_sub(1));
        let before = strides.get(stride).copied().unwrap_or_default();
        before + beginning(bytes.get(stride * STRIDE..offset).unwrap_or_default())
    }

    /// Where a line begins, from 1; the end of the text for one past the last.
    pub fn line_start(&self, line: usize) -> usize {
        self.line_starts().get(line.saturating_sub(1)).copied().unwrap_or(self.text.len())
    }

    /// How many lines there are.
    pub fn lines(&self) -> usize {
        self.line_starts().len()
    }

    fn line_starts(&self) -> &[usize] {
        &self.index().line_starts
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            let breaks = self.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
            let line_starts = std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect();
            let characters = self.text.as_bytes().chunks(STRIDE).scan(0, |before, stride| {
                let here = *before;
                *before += beginning(stride);
                Some(here)
            });
            Box::new(Index { line_starts, characters: characters.collect() })
        })
    }
}

/// How many characters begin in these bytes of a text.
fn beginning(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0b1100_0000 != 0b1000_0000).count()
}

/// The text, or what of it can be shown and how much of that is sound.
fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, (String, usize)> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut text = String::with_capacity(pairs.len());
    for decoded in char::decode_utf16(pairs.iter().copied().map(unit)) {
        match decoded {
            Ok(c) => text.push(c),
            Err(_) => return Err((text.clone(), text.len())),
        }
    }
    if rest.is_empty() { Ok(text) } else { Err((text.clone(), text.len())) }
}

impl Place<'_> {
    /// Where it begins.
    pub fn position(&self) -> Position {
        self.source.position(self.span.start)
    }
}

/// `shop/policy.yaml:12:5`, as compilers print it.
impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { line, column } = self.position();
        write!(f, "{}:{line}:{column}", self.source.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let source = Source::new("a.yaml", "a: 1\nü: 2\r\nb: 3");
        let at = |needle: &str| {
            let Position { line, column } = source.position(source.text.find(needle).unwrap());
            (line, column)
        };
        assert_eq!(at("a"), (1, 1));
        assert_eq!(at("2"), (2, 4));
        assert_eq!(at("b"), (3, 1));
        let end = source.position(source.text.len());
        assert_eq!((end.line, end.column), (3, 5));
    }

    #[test]
    fn a_column_of_a_line_of_any_length_counts_its_characters() {
        for length in [STRIDE - 2, STRIDE - 1, STRIDE, STRIDE + 1, 3 * STRIDE] {
            for filling in ["a", "ü", "😀"] {
                let line = filling.repeat(length);
                let source = Source::new("a.yaml", format!("{line}\nü{line}x{line}"));
                let position = source.position(source.text.find('x').unwrap());
                assert_eq!((position.line, position.column), (2, length + 2), "{length} of {filling}");
                assert_eq!(source.position(source.text.len()).column, 2 * length + 3);
            }
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        let decoded = Source::decode("x", b"\xEF\xBB\xBFa: 1".to_vec());
        assert_eq!((decoded.0.text.as_str(), decoded.1), ("a: 1", None));
    }

    #[test]
    fn utf16_is_read_in_both_byte_orders() {
        for (mark, bytes) in [([0xFF, 0xFE], u16::to_le_bytes as fn(u16) -> [u8; 2]), ([0xFE, 0xFF], u16::to_be_bytes)]
        {
            let text: Vec<u8> = "a: ü😀".encode_utf16().flat_map(bytes).collect();
            let (decoded, problem) = Source::decode("x", [mark.to_vec(), text].concat());
            assert_eq!((decoded.text.as_str(), problem), ("a: ü😀", None));
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_reported_where_they_are() {
        let (source, problem) = Source::decode("x", b"a: 1\nb: \xFF".to_vec());
        let position = source.position(problem.unwrap().span.start);
        assert_eq!((position.line, position.column), (2, 4));
    }
}
