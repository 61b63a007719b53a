//! The frame of a page: style, script and data in one file that asks nothing of a network.
//!
//! The page's own policy allows the one style sheet and the one script that are in it, by their hashes, and nothing else:
//! a name that got around the escaping would not run.

use sha2::{Digest as _, Sha256};
use std::io::{self, Write};

const STYLE: &str = include_str!("page.css");

pub struct Page<'a> {
    pub title: &'a str,
    /// Markup; every value in it has gone through [`escape`].
    pub body: &'a str,
}

const END: &str = "</body>\n</html>\n";

impl Page<'_> {
    /// A page that runs nothing.
    pub fn render(&self) -> String {
        self.start(None) + END
    }

    /// A page with a script and the JSON that it reads.
    pub fn write(
        &self,
        script: &str,
        json: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        out.write_all(self.start(Some(script)).as_bytes())?;
        out.write_all(b"<script type=\"application/json\" id=\"data\">")?;
        json(&mut Block(out))?;
        write!(out, "</script>\n<script>{script}</script>\n{END}")?;
        Ok(())
    }

    /// Everything before the scripts.
    fn start(&self, script: Option<&str>) -> String {
        let script = script.map_or("'none'".into(), |script| format!("'{}'", hash(script)));
        let policy = format!(
            "default-src 'none'; img-src data:; style-src '{}'; script-src {script}; base-uri 'none'; form-action 'none'; \
             require-trusted-types-for 'script'",
            hash(STYLE),
        );
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"generator\" content=\"cargo-accuracy {}\">\n\
             <link rel=\"icon\" href=\"data:,\">\n<title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{}",
            env!("CARGO_PKG_VERSION"),
            escape(self.title),
            self.body
        )
    }
}

/// JSON in a data block. The only way out of it is `</script`, or into a comment `<!--`; JSON has another `<`.
struct Block<'a>(&'a mut dyn Write);

impl Write for Block<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        for (i, part) in bytes.split(|byte| *byte == b'<').enumerate() {
            if i > 0 {
                self.0.write_all(b"\\u003c")?;
            }
            self.0.write_all(part)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Text as it stands in an element or in a quoted attribute.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}

/// How a policy names an inline style or script.
fn hash(text: &str) -> String {
    format!("sha256-{}", base64(&Sha256::digest(text)))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn neither_text_nor_data_becomes_markup() {
        assert_eq!(escape("<b a='\"'>&"), "&lt;b a=&#39;&quot;&#39;&gt;&amp;");
        let data = serde_json::to_string("</script><!--<script>").unwrap();
        let mut page = Vec::new();
        let json = |out: &mut dyn Write| Ok(out.write_all(data.as_bytes())?);
        Page { title: "</title>", body: "" }.write("run()", json, &mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        let block = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
        assert_eq!(serde_json::from_str::<String>(block).unwrap(), "</script><!--<script>");
        assert!(page.contains("<title>&lt;/title&gt;</title>"), "{page}");
        assert_eq!(page.matches("</script>").count(), 2);
    }
}
