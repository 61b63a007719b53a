//! Values of a parameter from a CSV file: `#[values(file = "tuned.csv", column = "split_k")]`.

use crate::attribute::{self, Entry};
use crate::errors::Errors;
use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use std::path::Path;
use syn::{Expr, ExprLit, Lit, LitStr, UnOp};

/// The file's literal, and label and expression of each value.
pub struct FromFile {
    pub file: LitStr,
    pub values: Vec<(String, TokenStream)>,
}

/// Whether the attribute's arguments name a file.
pub fn is_meant(tokens: &TokenStream) -> bool {
    let mut trees = tokens.clone().into_iter();
    let key = matches!(trees.next(), Some(TokenTree::Ident(i)) if ["file", "column", "columns"].iter().any(|k| i == k));
    key && matches!(trees.next(), Some(TokenTree::Punct(p)) if p.as_char() == '=')
}

/// Reads the values of `file = "..", column = ".."`, the file being relative to `package`.
pub fn read(tokens: TokenStream, package: &Path, errors: &mut Errors) -> Option<FromFile> {
    let (mut file, mut columns) = (None, None);
    let span = tokens.clone();
    for entry in attribute::entries(tokens, errors) {
        match entry.key.to_string().as_str() {
            "file" if file.is_none() => file = Some(string(&entry, errors)?),
            "column" if columns.is_none() => columns = Some(vec![string(&entry, errors)?]),
            "columns" if columns.is_none() => columns = Some(strings(&entry, errors)?),
            "file" | "column" | "columns" => {
                errors.at(&entry.key, "the file and its columns are given once");
                return None;
            }
            other => {
                errors.at(&entry.key, format!("`{other}` is no key here; known are file, column, columns"));
                return None;
            }
        }
    }
    let (Some(file), Some(columns)) = (file, columns) else {
        errors.at(span, "values from a file need both: `file = \"tuned.csv\", column = \"split_k\"`");
        return None;
    };
    let path = package.join(file.value());
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            errors.at(&file, format!("cannot read {}: {error}", path.display()));
            return None;
        }
    };
    let values = match rows(&text) {
        Ok(table) => pick(&table, &file, &columns, errors)?,
        Err(why) => {
            errors.at(&file, why);
            return None;
        }
    };
    Some(FromFile { file, values })
}

fn string(entry: &Entry, errors: &mut Errors) -> Option<LitStr> {
    let value = attribute::assigned(entry, "\"..\"", errors)?;
    let literal = syn::parse2::<LitStr>(value.clone()).ok().filter(|l| !l.value().is_empty());
    if literal.is_none() {
        errors.at(value, format!("`{}` takes a string that is not empty", entry.key));
    }
    literal
}

fn strings(entry: &Entry, errors: &mut Errors) -> Option<Vec<LitStr>> {
    let value = attribute::assigned(entry, "[\"..\", \"..\"]", errors)?;
    let mut list = Vec::new();
    if let Ok(Expr::Array(array)) = syn::parse2::<Expr>(value.clone()) {
        for element in &array.elems {
            match attribute::peel(element) {
                Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => list.push(text.clone()),
                other => {
                    errors.at(other, "the name of a column is a string");
                    return None;
                }
            }
        }
    }
    if list.is_empty() {
        errors.at(value, "`columns` takes a list of names, such as [\"tile_m\", \"tile_n\"]");
        return None;
    }
    Some(list)
}

/// The given columns of each row, rows that are alike once.
fn pick(
    table: &[Vec<String>],
    file: &LitStr,
    columns: &[LitStr],
    errors: &mut Errors,
) -> Option<Vec<(String, TokenStream)>> {
    let (header, rows) = table.split_first().unwrap_or((const { &Vec::new() }, &[]));
    let mut places = Vec::new();
    for column in columns {
        match header.iter().position(|name| *name == column.value()) {
            Some(place) => places.push(place),
            None => {
                errors.at(
                    column,
                    format!(
                        "{} has no column `{}`; it has {}",
                        file.value(),
                        column.value(),
                        header.join(", ")
                    ),
                );
                return None;
            }
        }
    }
    if rows.is_empty() {
        errors.at(file, format!("{} has no row behind its header: no cell would run", file.value()));
        return None;
    }
    let mut values: Vec<(String, TokenStream)> = Vec::new();
    for row in rows {
        let fields: Vec<&String> = places.iter().map(|&place| &row[place]).collect();
        if let Some(at) = fields.iter().position(|f| f.is_empty()) {
            let line = row.join(",");
            errors.at(file, format!("column `{}` is empty in the row `{line}`", columns[at].value()));
            return None;
        }
        let label = fields.iter().map(|f| f.as_str()).collect::<Vec<_>>().join("/");
        if values.iter().all(|(known, _)| *known != label) {
            let fields = fields.iter().zip(columns).map(|(field, column)| value(field, column.span()));
            let tokens = if columns.len() == 1 { quote!(#(#fields)*) } else { quote!((#(#fields),*)) };
            values.push((label, tokens));
        }
    }
    Some(values)
}

/// A literal as it stands, anything else as a string. Errors about it are at `span`.
fn value(field: &str, span: Span) -> TokenStream {
    fn is_literal(expr: &Expr) -> bool {
        match expr {
            Expr::Lit(_) => true,
            Expr::Unary(unary) => matches!(unary.op, UnOp::Neg(_)) && is_literal(&unary.expr),
            _ => false,
        }
    }
    let tokens = match syn::parse_str::<Expr>(field) {
        Ok(expr) if is_literal(&expr) => expr.to_token_stream(),
        _ => LitStr::new(field, span).to_token_stream(),
    };
    tokens
        .into_iter()
        .map(|mut tree| {
            tree.set_span(span);
            tree
        })
        .collect()
}

/// The fields of each line that is not empty, trimmed; a field may stand in double quotes (RFC 4180, but no line
/// breaks in fields). All rows have as many fields as the first.
fn rows(text: &str) -> Result<Vec<Vec<String>>, String> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let fields = fields(line).ok_or_else(|| format!("line {}: a quote is not closed", number + 1))?;
        if let Some(first) = rows.first()
            && first.len() != fields.len()
        {
            return Err(format!(
                "line {} has {} fields, the header has {}",
                number + 1,
                fields.len(),
                first.len()
            ));
        }
        rows.push(fields);
    }
    Ok(rows)
}

fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut()?;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.trim().is_empty() => quoted = true,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    (!quoted).then(|| fields.into_iter().map(|f| f.trim().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(csv: &str, arguments: TokenStream) -> Result<Vec<(String, String)>, String> {
        let folder = std::env::temp_dir().join("accuracy-macros-csv");
        std::fs::create_dir_all(&folder).unwrap();
        // A file for each content: tests run at the same time.
        let name = format!("{:x}.csv", csv.bytes().fold(5381u64, |h, b| h.wrapping_mul(33) ^ u64::from(b)));
        std::fs::write(folder.join(&name), csv).unwrap();
        let mut errors = Errors::default();
        let read = read(quote!(file = #name, #arguments), &folder, &mut errors);
        match read {
            Some(read) if errors.is_empty() => {
                Ok(read.values.into_iter().map(|(label, tokens)| (label, tokens.to_string())).collect())
            }
            _ => Err(errors.to_tokens().to_string()),
        }
    }

    #[test]
    fn each_row_is_a_value_and_rows_that_are_alike_are_one() {
        let csv = "M, split_k,kernel,ratio\n1,1,gemm_a,0.5\n\n33,4,\"b, \"\"q\"\"\",-1.5\n64,4,gemm_a,0.5\n";
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(picked(csv, quote!(column = "split_k")).unwrap(), [pair("1", "1"), pair("4", "4")]);
        assert_eq!(
            picked(csv, quote!(columns = ["kernel", "ratio"])).unwrap(),
            [pair("gemm_a/0.5", "(\"gemm_a\" , 0.5)"), pair("b, \"q\"/-1.5", "(\"b, \\\"q\\\"\" , - 1.5)")]
        );
    }

    #[test]
    fn what_is_wrong_with_the_file_is_said() {
        for (csv, arguments, expected) in [
            ("a,b\n1,2\n", quote!(column = "c"), "has no column `c`; it has a, b"),
            ("a,b\n", quote!(column = "a"), "no row behind its header"),
            ("a,b\n1\n", quote!(column = "a"), "line 2 has 1 fields, the header has 2"),
            ("a,b\n1,\n", quote!(column = "b"), "column `b` is empty in the row `1,`"),
            ("a,b\n\"1,2\n", quote!(column = "b"), "line 2: a quote is not closed"),
            ("a\n1\n", quote!(), "need both"),
            ("a\n1\n", quote!(columns = []), "takes a list of names"),
            ("a\n1\n", quote!(row = "a"), "`row` is no key here"),
        ] {
            let error = picked(csv, arguments).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
