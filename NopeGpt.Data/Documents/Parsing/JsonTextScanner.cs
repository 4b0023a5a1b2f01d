using System.Buffers;
using System.Buffers.Binary;
using System.Text;
using System.Text.Json;

namespace NopeGpt.Data.Documents.Parsing;

/// <summary>Finds the text of one property in an object of JSON, several bytes at a time. It takes only what it understands to the last byte; what is
/// odd or broken is left to the reader of the framework, which says what is wrong. Not for several threads at once.</summary>
internal sealed class JsonTextScanner
{
    /// <summary>What ends a run of ordinary bytes in a string: its end, an escape, or a control character, which cannot stand there.</summary>
    private static readonly SearchValues<byte> _stringMarks = SearchValues.Create([.. Enumerable.Range(0, 0x20).Select(i => (byte)i), (byte)'"', (byte)'\\']);

    private static readonly JsonReaderOptions _inner = new() { MaxDepth = 63 };
    private byte[] _unescaped = [];

    /// <param name="json">Valid UTF-8.</param>
    /// <param name="name">The property, in UTF-8.</param>
    /// <param name="text">It stays until the next call. The last one where several have the name.</param>
    /// <returns>False where there is anything else than an object whose property is a text.</returns>
    public bool TryFind(ReadOnlyMemory<byte> json, ReadOnlySpan<byte> name, out ReadOnlyMemory<byte> text)
    {
        text = default;
        bool found = false;
        ReadOnlySpan<byte> all = json.Span;
        int at = Space(all, 0);
        if (!Is(all, at, '{')) return false;
        do
        {
            at = Space(all, at + 1);
            if (!Is(all, at, '"')) return false;
            int start = at + 1, end = start + all[start..].IndexOfAny(_stringMarks);
            if (!Is(all, end, '"') || end < start) return false;
            bool wanted = all[start..end].SequenceEqual(name);
            at = Space(all, end + 1);
            if (!Is(all, at, ':')) return false;
            at = Space(all, at + 1);
            // A later property of the name that is no text would count in place of this one.
            if (wanted && !Is(all, at, '"')) return false;
            at = wanted ? Text(json, at, out text) : Is(all, at, '"') ? Pass(all, at) : Other(all, at);
            if (at < 0) return false;
            found |= wanted;
            at = Space(all, at);
        }
        while (Is(all, at, ','));
        return found && Is(all, at, '}') && Space(all, at + 1) == all.Length;
    }

    private static bool Is(ReadOnlySpan<byte> json, int at, char character) => (uint)at < (uint)json.Length && json[at] == character;

    private static int Space(ReadOnlySpan<byte> json, int at)
    {
        while (at < json.Length && json[at] is (byte)' ' or (byte)'\t' or (byte)'\r' or (byte)'\n') at++;
        return at;
    }

    /// <summary>Behind a string that nobody wants; -1 where it is odd.</summary>
    private static int Pass(ReadOnlySpan<byte> json, int at)
    {
        Span<byte> character = stackalloc byte[4];
        for (at++; ;)
        {
            int run = json[at..].IndexOfAny(_stringMarks);
            if (run < 0) return -1;
            at += run;
            if (json[at] == '"') return at + 1;
            int length = json[at] == '\\' ? Unescape(json[at..], character, out _) : 0;
            if (length == 0) return -1;
            at += length;
        }
    }

    /// <summary>Behind a number, a word, a list or an object; -1 where it is odd.</summary>
    private static int Other(ReadOnlySpan<byte> json, int at)
    {
        Utf8JsonReader reader = new(json[at..], _inner);
        try
        {
            if (!reader.Read()) return -1;
            reader.Skip();
            return at + (int)reader.BytesConsumed;
        }
        catch (JsonException) { return -1; }
    }

    /// <summary>The wanted string, without a copy where nothing in it is escaped.</summary>
    /// <returns>Behind it; -1 where it is odd.</returns>
    private int Text(ReadOnlyMemory<byte> json, int at, out ReadOnlyMemory<byte> text)
    {
        text = default;
        ReadOnlySpan<byte> rest = json.Span[(at + 1)..];
        int run = rest.IndexOfAny(_stringMarks);
        if (run < 0) return -1;
        if (rest[run] == '"')
        {
            text = json.Slice(at + 1, run);
            return at + run + 2;
        }
        // Unescaped, nothing is longer. Room for a character behind that.
        if (_unescaped.Length < rest.Length + 4) _unescaped = GC.AllocateUninitializedArray<byte>(Math.Max(rest.Length + 4, 2 * _unescaped.Length));
        Span<byte> into = _unescaped;
        int from = 0, written = 0;
        while (true)
        {
            rest.Slice(from, run).CopyTo(into[written..]);
            (from, written) = (from + run, written + run);
            if (rest[from] == '"') break;
            int length = rest[from] == '\\' ? Unescape(rest[from..], into[written..], out int bytes) : bytes = 0;
            if (length == 0) return -1;
            (from, written) = (from + length, written + bytes);
            run = rest[from..].IndexOfAny(_stringMarks);
            if (run < 0) return -1;
        }
        text = _unescaped.AsMemory(0, written);
        return at + from + 2;
    }

    /// <summary>The character that an escape means, two of them where they are the halves of one.</summary>
    /// <returns>Length of the escape; 0 where it is none or half a character.</returns>
    private static int Unescape(ReadOnlySpan<byte> escape, Span<byte> into, out int written)
    {
        written = 1;
        byte kind = escape.Length > 1 ? escape[1] : (byte)0;
        if (kind == 'u') return Unicode(escape, into, out written);
        byte meant = kind switch { (byte)'n' => (byte)'\n', (byte)'t' => (byte)'\t', (byte)'r' => (byte)'\r', (byte)'b' => (byte)'\b', (byte)'f' => (byte)'\f', (byte)'"' or (byte)'\\' or (byte)'/' => kind, _ => 0 };
        into[0] = meant;
        return meant == 0 ? 0 : 2;
    }

    private static int Unicode(ReadOnlySpan<byte> escape, Span<byte> into, out int written)
    {
        written = 0;
        if (!Unit(escape, out char first)) return 0;
        if (Rune.TryCreate(first, out Rune character))
        {
            written = character.EncodeToUtf8(into);
            return 6;
        }
        if (!Unit(escape[6..], out char second) || !Rune.TryCreate(first, second, out character)) return 0;
        written = character.EncodeToUtf8(into);
        return 12;
    }

    /// <summary>The UTF-16 unit of \uXXXX.</summary>
    private static bool Unit(ReadOnlySpan<byte> escape, out char unit)
    {
        unit = default;
        Span<byte> bytes = stackalloc byte[2];
        if (escape.Length < 6 || !escape.StartsWith("\\u"u8) || Convert.FromHexString(escape[2..6], bytes, out _, out _) != OperationStatus.Done) return false;
        unit = (char)BinaryPrimitives.ReadUInt16BigEndian(bytes);
        return true;
    }
}
