//! Modules of a crate: the items that each declares, imports and names.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Ident, ImplItem, Item, ItemConst, ItemEnum, ItemImpl, ItemMacro, ItemMod,
    ItemStatic, ItemStruct, ItemTrait, ItemType, ItemUse, Meta, Token, UseTree, Visibility,
    punctuated::Punctuated,
    visit::{self, Visit},
};

use super::source::Texts;

/// Modules by path from the crate's root, whose own path is empty.
pub type Modules = BTreeMap<Vec<String>, Module>;

/// A module, either a whole file or inline in one.
#[derive(Default)]
pub struct Module {
    pub file: String,
    /// Path of the module that is the whole file.
    pub home: Vec<String>,
    pub items: BTreeSet<String>,
    /// Names in scope by `use`, with their paths. A name may refer to a module and a function at the same time.
    pub imports: Vec<(String, Vec<String>)>,
    pub globs: Vec<Vec<String>>,
    pub names: Vec<Name>,
}

/// A path as written in the code.
pub struct Name {
    pub path: Vec<String>,
    pub line: usize,
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Code,
    Use { is_glob: bool, is_reexport: bool },
}

/// Returns the modules that the crate's root declares, directly and through other modules.
pub fn modules(texts: &Texts) -> Modules {
    let mut reader = Reader { texts, modules: Modules::new(), module: Vec::new() };
    for root in ["lib.rs", "main.rs"] {
        reader.file(root);
    }
    reader.modules
}

struct Reader<'texts> {
    texts: &'texts Texts,
    modules: Modules,
    module: Vec<String>,
}

impl Reader<'_> {
    fn file(&mut self, file: &str) {
        let Some(text) = self.texts.get(file) else { return };
        let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        let home = self.module.clone();
        let module = Module { file: file.to_owned(), home: home.clone(), ..Module::default() };
        self.modules.insert(home, module);
        self.visit_file(&parsed);
    }

    fn here(&mut self) -> &mut Module {
        self.modules.get_mut(&self.module).expect("a module is inserted before it is visited")
    }

    fn name(&mut self, path: Vec<String>, ident: &Ident, kind: Kind) {
        let line = ident.span().start().line;
        self.here().names.push(Name { path, line, kind });
    }

    fn import(&mut self, tree: &UseTree, mut path: Vec<String>, last: &Ident, is_reexport: bool) {
        let (ident, alias) = match tree {
            UseTree::Path(tree) => {
                path.push(text(&tree.ident));
                return self.import(&tree.tree, path, &tree.ident, is_reexport);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, path.clone(), last, is_reexport);
                }
                return;
            }
            UseTree::Glob(_) => {
                self.name(path.clone(), last, Kind::Use { is_glob: true, is_reexport });
                return self.here().globs.push(path);
            }
            UseTree::Name(tree) => (&tree.ident, &tree.ident),
            UseTree::Rename(tree) => (&tree.ident, &tree.rename),
        };
        if ident != "self" {
            path.push(text(ident));
        }
        let alias = if alias == "self" { last } else { alias };
        self.name(path.clone(), ident, Kind::Use { is_glob: false, is_reexport });
        self.here().imports.push((text(alias), path));
    }

    fn path_in_tokens(&mut self, path: &mut Vec<Ident>) {
        if let [first, _, ..] = &path[..] {
            self.name(path.iter().map(text).collect(), &first.clone(), Kind::Code);
        }
        path.clear();
    }
}

impl Visit<'_> for Reader<'_> {
    fn visit_item(&mut self, item: &Item) {
        let (attributes, ident) = head(item);
        if attributes.iter().any(is_test) {
            return;
        }
        self.here().items.extend(ident.map(text));
        visit::visit_item(self, item);
    }

    fn visit_impl_item(&mut self, item: &ImplItem) {
        let attributes = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            ImplItem::Macro(item) => &item.attrs,
            _ => return,
        };
        if !attributes.iter().any(is_test) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &ItemMod) {
        let Module { file, home, .. } = self.here();
        let inline = Module { file: file.clone(), home: home.clone(), ..Module::default() };
        self.module.push(text(&item.ident));
        if let Some((_, items)) = &item.content {
            self.modules.insert(self.module.clone(), inline);
            for item in items {
                self.visit_item(item);
            }
        } else {
            self.file(&format!("{}.rs", self.module.join("/")));
        }
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &ItemUse) {
        let is_reexport = !matches!(item.vis, Visibility::Inherited);
        if item.leading_colon.is_none() {
            let first = Ident::new("crate", item.use_token.span);
            self.import(&item.tree, Vec::new(), &first, is_reexport);
        }
    }

    fn visit_path(&mut self, path: &syn::Path) {
        if let (None, Some(first)) = (&path.leading_colon, path.segments.first()) {
            let segments = path.segments.iter().map(|segment| text(&segment.ident)).collect();
            self.name(segments, &first.ident, Kind::Code);
        }
        visit::visit_path(self, path);
    }

    /// Visits tokens of macros and attributes. Any sequence that looks like a path of two or more names counts as a
    /// path.
    fn visit_token_stream(&mut self, tokens: &TokenStream) {
        let mut path: Vec<Ident> = Vec::new();
        let mut colons = 0;
        for token in tokens.clone() {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                // `<T as Trait>::Name` and `::name` do not start in this module.
                TokenTree::Ident(_) if colons == 2 && path.is_empty() => colons = 0,
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.path_in_tokens(&mut path);
                    }
                    path.push(ident);
                    colons = 0;
                }
                other => {
                    self.path_in_tokens(&mut path);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.visit_token_stream(&group.stream());
                    }
                }
            }
        }
        self.path_in_tokens(&mut path);
    }
}

fn text(ident: &Ident) -> String {
    ident.to_string().trim_start_matches("r#").to_owned()
}

/// Returns the attributes of an item, and the name that it declares in its module.
fn head(item: &Item) -> (&[Attribute], Option<&Ident>) {
    match item {
        Item::Const(ItemConst { attrs, ident, .. })
        | Item::Enum(ItemEnum { attrs, ident, .. })
        | Item::Static(ItemStatic { attrs, ident, .. })
        | Item::Struct(ItemStruct { attrs, ident, .. })
        | Item::Trait(ItemTrait { attrs, ident, .. })
        | Item::Type(ItemType { attrs, ident, .. }) => (attrs, Some(ident)),
        Item::Fn(item) => (&item.attrs, Some(&item.sig.ident)),
        Item::Macro(ItemMacro { attrs, ident, .. }) => (attrs, ident.as_ref()),
        Item::Impl(ItemImpl { attrs, .. })
        | Item::Mod(ItemMod { attrs, .. })
        | Item::Use(ItemUse { attrs, .. }) => (attrs, None),
        _ => (&[], None),
    }
}

/// Returns true for `#[cfg(test)]`, alone or as one condition of `all`.
fn is_test(attribute: &Attribute) -> bool {
    fn needs_test(meta: &Meta) -> bool {
        let parts = Punctuated::<Meta, Token![,]>::parse_terminated;
        match meta {
            Meta::Path(path) => path.is_ident("test"),
            Meta::List(list) if list.path.is_ident("all") => {
                list.parse_args_with(parts).is_ok_and(|parts| parts.iter().any(needs_test))
            }
            Meta::List(_) | Meta::NameValue(_) => false,
        }
    }
    attribute.path().is_ident("cfg")
        && attribute.parse_args().is_ok_and(|meta: Meta| needs_test(&meta))
}
