//! Names of header fields as CGI's: `Accept-Encoding` is `HTTP_ACCEPT_ENCODING`.

/// The CGI name of a field, or `None` for one that is left out because of an underscore.
pub fn cgi_name(name: &[u8]) -> Option<String> {
    if name.contains(&b'_') {
        return None;
    }
    let upper = |c: &u8| match c {
        b'-' => '_',
        c => c.to_ascii_uppercase() as char,
    };
    let plain: String = name.iter().map(upper).collect();
    Some(match plain.as_str() {
        "CONTENT_TYPE" | "CONTENT_LENGTH" => plain,
        _ => format!("HTTP_{plain}"),
    })
}

/// What joins the values of a field that comes more than once.
pub fn joint(cgi: &str) -> &'static str {
    if cgi.contains("COOKIE") { "; " } else { "," }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(cgi_name(b"X-a").as_deref(), Some("HTTP_X_A"));
        assert_eq!(cgi_name(b"content-Type").as_deref(), Some("CONTENT_TYPE"));
        assert_eq!(cgi_name(b"x_a"), None);
        assert_eq!(joint("HTTP_COOKIE"), "; ");
    }
}
