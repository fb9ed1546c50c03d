//! `#[entry]`: marks a function that the interpreter calls. Its body runs in a function of the binding that
//! catches a panic, so that none crosses a frame of C; what comes of a panic is said there (`entry.rs`).

use proc_macro::TokenStream;
use quote::{ToTokens, quote};
use syn::{Block, Error, ImplItem, Item, ReturnType, Type, parse_quote};

/// Has the body of a function run in `crate::entry::caught`, or with `#[entry(silent)]` in
/// `crate::entry::silent`. In an `impl` block, such as pyo3's methods, that is done to every method that returns
/// a `PyResult`.
#[proc_macro_attribute]
pub fn entry(how: TokenStream, item: TokenStream) -> TokenStream {
    let runner = match how.to_string().as_str() {
        "" => quote!(crate::entry::caught),
        "silent" => quote!(crate::entry::silent),
        other => panic!("#[entry({other})] is unknown"),
    };
    let mut item = syn::parse_macro_input!(item as Item);
    let wrap = |block: &mut Block| {
        let body = block.clone();
        *block = parse_quote!({ #runner(move || #body) });
    };
    match &mut item {
        Item::Fn(f) => wrap(&mut f.block),
        Item::Impl(methods) => {
            for method in &mut methods.items {
                if let ImplItem::Fn(f) = method
                    && is_result(&f.sig.output)
                {
                    wrap(&mut f.block);
                }
            }
        }
        other => {
            let error = Error::new_spanned(other, "#[entry] is for functions and their blocks");
            return error.to_compile_error().into();
        }
    }
    item.into_token_stream().into()
}

fn is_result(output: &ReturnType) -> bool {
    let ReturnType::Type(_, ty) = output else {
        return false;
    };
    matches!(&**ty, Type::Path(path) if path.path.segments.last().is_some_and(|s| s.ident == "PyResult"))
}
