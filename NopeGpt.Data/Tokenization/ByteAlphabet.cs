using System.Text;

namespace NopeGpt.Data.Tokenization;

/// <summary>The byte-level alphabet of GPT-2: every byte as one printable character, so that tokens can be written as text.
/// Printable Latin-1 bytes stand for themselves; the others take the code points from U+0100 on, in order.</summary>
internal static class ByteAlphabet
{
    private const int ByteCount = 256;
    private static readonly char[] _ofByte = new char[ByteCount];
    private static readonly Dictionary<char, byte> _ofCharacter = [];

    static ByteAlphabet()
    {
        char free = (char)ByteCount;
        for (int value = 0; value < ByteCount; value++)
        {
            bool printable = value is (>= '!' and <= '~') or (>= 0xA1 and <= 0xAC) or (>= 0xAE and <= 0xFF);
            _ofByte[value] = printable ? (char)value : free++;
            _ofCharacter.Add(_ofByte[value], (byte)value);
        }
        Order = [.. Enumerable.Range(0, ByteCount).Select(value => (byte)value).OrderBy(value => _ofByte[value])];
    }

    /// <summary>The bytes in the order in which Hugging Face's trainer numbers them: by the code point of their character.</summary>
    public static byte[] Order { get; }

    public static string ToText(ReadOnlySpan<byte> bytes)
    {
        StringBuilder text = new(bytes.Length);
        foreach (byte value in bytes) text.Append(_ofByte[value]);
        return text.ToString();
    }

    /// <summary>The bytes, or null when a character is not of the alphabet.</summary>
    public static byte[]? ToBytes(string text)
    {
        byte[] bytes = new byte[text.Length];
        for (int i = 0; i < bytes.Length; i++)
            if (!_ofCharacter.TryGetValue(text[i], out bytes[i])) return null;
        return bytes;
    }
}
