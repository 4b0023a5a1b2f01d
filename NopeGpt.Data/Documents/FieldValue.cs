using System.Text;

namespace NopeGpt.Data.Documents;

public enum FieldKind
{
    Null,
    Text,
    Whole,
    Number,
    Boolean,
    List,
    Record,
}

/// <summary>A value in a <see cref="Record"/>: nothing, a text, a number, a truth value, a list of values or a record of its own.</summary>
public readonly struct FieldValue : IEquatable<FieldValue>
{
    private readonly object? _reference;
    private readonly long _bits;

    private FieldValue(FieldKind kind, object? reference, long bits) => (Kind, _reference, _bits) = (kind, reference, bits);

    public FieldKind Kind { get; }

    public bool IsNull => Kind == FieldKind.Null;

    /// <summary>The text; null when the value is something else.</summary>
    public string? AsText => _reference is byte[] utf8 ? Encoding.UTF8.GetString(utf8) : _reference as string;

    /// <summary>The text in UTF-8; null when the value is something else.</summary>
    internal byte[]? AsUtf8 => _reference is string text ? Encoding.UTF8.GetBytes(text) : _reference as byte[];

    /// <summary>The list; null when the value is something else.</summary>
    public IReadOnlyList<FieldValue>? AsList => _reference as FieldValue[];

    /// <summary>The record; null when the value is something else.</summary>
    public Record? AsRecord => _reference as Record;

    /// <summary>The number, whole or not; null when the value is something else.</summary>
    public double? AsNumber => Kind switch
    {
        FieldKind.Whole => _bits,
        FieldKind.Number => BitConverter.Int64BitsToDouble(_bits),
        _ => null,
    };

    /// <summary>The whole number; null when the value is something else.</summary>
    public long? AsWhole => Kind == FieldKind.Whole ? _bits : null;

    public bool? AsBoolean => Kind == FieldKind.Boolean ? _bits != 0 : null;

    public static FieldValue Of(string? text) => text is null ? default : new(FieldKind.Text, text, 0);

    /// <summary>A text in valid UTF-8, which nobody changes any more.</summary>
    internal static FieldValue OfUtf8(byte[] text) => new(FieldKind.Text, text, 0);

    public static FieldValue Of(long number) => new(FieldKind.Whole, null, number);

    public static FieldValue Of(double number) => new(FieldKind.Number, null, BitConverter.DoubleToInt64Bits(number));

    public static FieldValue Of(bool value) => new(FieldKind.Boolean, null, value ? 1 : 0);

    public static FieldValue Of(FieldValue[] list) => new(FieldKind.List, list, 0);

    public static FieldValue Of(Record record) => new(FieldKind.Record, record, 0);

    /// <summary>Equal in kind and content; records are equal when their names and values are, wherever they came from.</summary>
    public bool Equals(FieldValue other) => Kind == other.Kind && _bits == other._bits && Kind switch
    {
        FieldKind.Text => string.Equals(AsText, other.AsText, StringComparison.Ordinal),
        FieldKind.List => AsList!.SequenceEqual(other.AsList!),
        FieldKind.Record => AsRecord!.Names.SequenceEqual(other.AsRecord!.Names) && AsRecord!.Values.SequenceEqual(other.AsRecord!.Values),
        _ => true,
    };

    public override bool Equals(object? obj) => obj is FieldValue other && Equals(other);

    public override int GetHashCode() => Kind switch
    {
        FieldKind.Text => AsText!.GetHashCode(StringComparison.Ordinal),
        FieldKind.List => AsList!.Count,
        FieldKind.Record => AsRecord!.Names.Count,
        _ => HashCode.Combine(Kind, _bits),
    };

    public static bool operator ==(FieldValue left, FieldValue right) => left.Equals(right);

    public static bool operator !=(FieldValue left, FieldValue right) => !left.Equals(right);

    public override string ToString() => Kind switch
    {
        FieldKind.Null => "null",
        FieldKind.Text => AsText!,
        FieldKind.Whole => $"{_bits}",
        FieldKind.Number => $"{AsNumber}",
        FieldKind.Boolean => _bits != 0 ? "true" : "false",
        FieldKind.List => $"[{string.Join(", ", AsList!)}]",
        _ => $"{{{string.Join(", ", AsRecord!.Names.Zip(AsRecord.Values, (name, value) => $"{name}: {value}"))}}}",
    };
}
