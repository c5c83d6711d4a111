//! [`messages!`]: message structures declared in the terms of Kafka's published message schema (field, type,
//! versions). Decoder, encoder and schema test are generated from the declaration.

/// Declares message structures: `field: type [versions; null versions; default value]`.
///
/// A field that is absent from a version is read as its default (that of its type if none is given) and not written.
/// In a flexible version, fields in `tagged { tag field: … }` are written only if they differ from their default, and
/// undeclared tags are skipped.
macro_rules! messages {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $field:ident: $type:ty [ $versions:expr $(; null $null:expr)? $(; default $default:expr)? ] ),* $(,)?
        }
        $(tagged {
            $( $tag:literal $tfield:ident: $ttype:ty [ $tversions:expr $(; null $tnull:expr)? $(; default $tdefault:expr)? ] ),* $(,)?
        })?
    )*) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Clone, PartialEq)]
            pub struct $name {
                $( pub $field: $type, )*
                $($( pub $tfield: $ttype, )*)?
            }

            impl Default for $name {
                fn default() -> Self {
                    $name {
                        $( $field: $crate::codec::messages::field_default!($($default)?), )*
                        $($( $tfield: $crate::codec::messages::field_default!($($tdefault)?), )*)?
                    }
                }
            }

            impl $crate::codec::wire::Wire for $name {
                #[cfg(test)]
                fn schema_type() -> String {
                    stringify!($name).into()
                }

                #[cfg(test)]
                fn sample(seed: &mut $crate::codec::wire::Seed, version: $crate::codec::wire::Version) -> Self {
                    let mut message = $name::default();
                    $(
                        if ($versions).contains(&version.number) {
                            message.$field = $crate::codec::wire::Wire::sample(seed, version);
                            $(
                                if !($null).contains(&version.number) && message.$field.is_none() {
                                    message.$field = Some(Default::default());
                                }
                            )?
                        }
                    )*
                    $($(
                        if version.flexible && ($tversions).contains(&version.number) {
                            message.$tfield = $crate::codec::wire::Wire::sample(seed, version);
                        }
                    )*)?
                    message
                }

                fn bytes_min(version: $crate::codec::wire::Version) -> usize {
                    usize::from(version.flexible)
                        $( + match ($versions).contains(&version.number) {
                            true => <$type as $crate::codec::wire::Wire>::bytes_min(version),
                            false => 0,
                        } )*
                }

                fn read(
                    reader: &mut $crate::codec::reader::Reader,
                    version: $crate::codec::wire::Version,
                ) -> Result<Self, $crate::codec::reader::DecodeError> {
                    let message = $name {
                        $( $field: match ($versions).contains(&version.number) {
                            true => $crate::codec::wire::Wire::read(reader, version)?,
                            false => $crate::codec::messages::field_default!($($default)?),
                        }, )*
                        $($( $tfield: $crate::codec::messages::field_default!($($tdefault)?), )*)?
                    };
                    if version.flexible {
                        return $crate::codec::messages::read_tagged!(message, reader, version $(, $( $tag $tfield [$tversions] )* )?);
                    }
                    Ok(message)
                }

                fn write(&self, out: &mut bytes::BytesMut, version: $crate::codec::wire::Version) {
                    $(
                        if ($versions).contains(&version.number) {
                            $crate::codec::messages::write_field!(self.$field, out, version $(, $null)?);
                        }
                    )*
                    if version.flexible {
                        $crate::codec::messages::write_tagged!(self, out, version $(, $( $tag $tfield [$tversions] )* )?);
                    }
                }

                fn throttle(&mut self, throttle_time_ms: i32) {
                    let _ = throttle_time_ms;
                    $( $crate::codec::messages::throttle_field!(self, $field, throttle_time_ms); )*
                }

                fn each_error(&self, report: &mut impl FnMut($crate::codec::error_code::ErrorCode)) {
                    let _ = &report;
                    $( $crate::codec::wire::Wire::each_error(&self.$field, report); )*
                    $($( $crate::codec::wire::Wire::each_error(&self.$tfield, report); )*)?
                }

                #[cfg(test)]
                fn collect_structures(into: &mut Vec<$crate::codec::wire::StructureSchema>) {
                    into.push($crate::codec::wire::StructureSchema {
                        name: stringify!($name).into(),
                        fields: $name::schema(),
                    });
                    $( <$type as $crate::codec::wire::Wire>::collect_structures(into); )*
                    $($( <$ttype as $crate::codec::wire::Wire>::collect_structures(into); )*)?
                }
            }

            impl $crate::codec::wire::Nullable for $name {
                fn read_nullable(
                    reader: &mut $crate::codec::reader::Reader,
                    version: $crate::codec::wire::Version,
                ) -> Result<Option<Self>, $crate::codec::reader::DecodeError> {
                    match reader.i8()? {
                        ..0 => Ok(None),
                        _ => <$name as $crate::codec::wire::Wire>::read(reader, version).map(Some),
                    }
                }
                fn write_null(out: &mut bytes::BytesMut, _: $crate::codec::wire::Version) {
                    bytes::BufMut::put_i8(out, -1);
                }
                fn write_present(&self, out: &mut bytes::BytesMut, version: $crate::codec::wire::Version) {
                    bytes::BufMut::put_i8(out, 1);
                    $crate::codec::wire::Wire::write(self, out, version);
                }
            }

            #[cfg(test)]
            impl $name {
                /// The fields as declared, for the comparison with Kafka's schema.
                pub fn schema() -> Vec<$crate::codec::wire::FieldSchema> {
                    use $crate::codec::wire::{FieldSchema, Wire};
                    vec![
                        $( FieldSchema {
                            name: stringify!($field),
                            kind: <$type as Wire>::schema_type(),
                            versions: stringify!($versions),
                            null: $crate::codec::messages::or_empty!($(stringify!($null))?),
                            tag: None,
                        }, )*
                        $($( FieldSchema {
                            name: stringify!($tfield),
                            kind: <$ttype as Wire>::schema_type(),
                            versions: stringify!($tversions),
                            null: $crate::codec::messages::or_empty!($(stringify!($tnull))?),
                            tag: Some($tag),
                        }, )*)?
                    ]
                }
            }
        )*
    };
}

macro_rules! field_default {
    () => {
        Default::default()
    };
    ($default:expr) => {
        $default
    };
}

#[cfg(test)]
macro_rules! or_empty {
    () => {
        ""
    };
    ($text:expr) => {
        $text
    };
}

macro_rules! throttle_field {
    ($self:ident, throttle_time_ms, $value:expr) => {
        $self.throttle_time_ms = $self.throttle_time_ms.max($value);
    };
    ($self:ident, $other:ident, $value:expr) => {};
}

macro_rules! write_field {
    ($value:expr, $out:expr, $version:expr) => {
        $crate::codec::wire::Wire::write(&$value, $out, $version)
    };
    ($value:expr, $out:expr, $version:expr, $null:expr) => {
        if ($null).contains(&$version.number) {
            $crate::codec::wire::Wire::write(&$value, $out, $version);
        } else {
            $crate::codec::wire::write_never_null(&$value, $out, $version);
        }
    };
}

macro_rules! read_tagged {
    ($message:expr, $reader:expr, $version:expr) => {
        $reader.skip_tagged_fields().map(|()| $message)
    };
    ($message:expr, $reader:expr, $version:expr, $( $tag:literal $field:ident [$versions:expr] )*) => {{
        let mut message = $message;
        $reader.tagged_fields(|tag, bytes| {
            let mut field = $crate::codec::reader::Reader::new(bytes);
            match tag {
                $( $tag if ($versions).contains(&$version.number) => {
                    message.$field = $crate::codec::wire::Wire::read(&mut field, $version)?;
                } )*
                _ => {}
            }
            Ok(())
        })?;
        Ok(message)
    }};
}

macro_rules! write_tagged {
    ($message:expr, $out:expr, $version:expr) => {
        bytes::BufMut::put_u8($out, 0)
    };
    ($message:expr, $out:expr, $version:expr, $( $tag:literal $field:ident [$versions:expr] )*) => {{
        let default = Self::default();
        let mut fields: Vec<(u32, bytes::BytesMut)> = Vec::new();
        $(
            if ($versions).contains(&$version.number) && $message.$field != default.$field {
                let mut field = bytes::BytesMut::new();
                $crate::codec::wire::Wire::write(&$message.$field, &mut field, $version);
                fields.push(($tag, field));
            }
        )*
        $crate::codec::wire::write_varint($out, fields.len() as u32);
        for (tag, field) in fields {
            $crate::codec::wire::write_varint($out, tag);
            $crate::codec::wire::write_varint($out, field.len() as u32);
            $out.extend_from_slice(&field);
        }
    }};
}

#[cfg(test)]
pub(crate) use or_empty;
pub(crate) use {field_default, messages, read_tagged, throttle_field, write_field, write_tagged};
