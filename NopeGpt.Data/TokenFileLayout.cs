using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;

namespace NopeGpt.Data;

/// <summary>Where the end-of-text token of a document stands. The numbers are those in token files.</summary>
public enum EndOfText
{
    /// <summary>Behind the document, which nanoGPT and we do by default.</summary>
    After = 0,

    /// <summary>In front of the document, which lilLM, llm.c and nanochat do.</summary>
    Before = 1,

    /// <summary>Nowhere, or not known.</summary>
    None = 2,
}

/// <summary>The header of a token file. Little-endian: magic (8 bytes), version, header length, bytes per id, vocabulary size (4 each),
/// tokens, documents, text bytes (8 each), tokenizer hash (64, ASCII, padded with zeros), SHA-256 (32), place of end-of-text (1), zeros up to
/// the header's length. After it come the ids, zeros up to a multiple of 8, and the position of the first token of every document (8 each).
/// The checksum is over ids, padding, index and the header with the checksum itself zero.</summary>
internal sealed record TokenFileLayout(int VocabularySize, long Count, long Documents, long TextBytes, string TokenizerHash, EndOfText EndOfText, byte[] Checksum)
{
    public const int HeaderBytes = 192, Version = 1, HashBytes = 64, WidestNarrow = 65_536;
    private const int ChecksumAt = 112, EndOfTextAt = 144, RestAt = 145;

    public static ReadOnlySpan<byte> Magic => "NOPETOKS"u8;

    public int Width => WidthFor(VocabularySize);
    public long IndexAt => Align(HeaderBytes + (Count * Width));
    public long FileBytes => IndexAt + (Documents * sizeof(long));

    public static int WidthFor(int vocabularySize) => vocabularySize <= WidestNarrow ? sizeof(ushort) : sizeof(uint);

    public static long Align(long position) => (position + 7) / 8 * 8;

    /// <summary>Why a vocabulary and a tokenizer's hash cannot stand in a header; null when they can.</summary>
    public static string? Problem(int vocabularySize, string tokenizerHash)
    {
        if (vocabularySize < 1) return $"The vocabulary size is {vocabularySize}; it must be at least 1.";
        return tokenizerHash.Length > HashBytes || tokenizerHash.Any(c => c is < '!' or > '~')
            ? $"The tokenizer hash '{tokenizerHash}' must be at most {HashBytes} printable ASCII characters." : null;
    }

    public byte[] Write()
    {
        byte[] header = new byte[HeaderBytes];
        Magic.CopyTo(header);
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(8), Version);
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(12), HeaderBytes);
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(16), Width);
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(20), VocabularySize);
        BinaryPrimitives.WriteInt64LittleEndian(header.AsSpan(24), Count);
        BinaryPrimitives.WriteInt64LittleEndian(header.AsSpan(32), Documents);
        BinaryPrimitives.WriteInt64LittleEndian(header.AsSpan(40), TextBytes);
        Encoding.ASCII.GetBytes(TokenizerHash, header.AsSpan(48, HashBytes));
        Checksum.CopyTo(header.AsSpan(ChecksumAt));
        header[EndOfTextAt] = (byte)EndOfText;
        return header;
    }

    /// <summary>The header, or what is wrong with it.</summary>
    public static (TokenFileLayout? Layout, string Problem) Read(ReadOnlySpan<byte> header, long fileBytes)
    {
        if (header.Length < Magic.Length || !header.StartsWith(Magic)) return (null, "it is not a token file (its first bytes are others)");
        if (header.Length < HeaderBytes) return (null, "it ends inside its header");
        int version = BinaryPrimitives.ReadInt32LittleEndian(header[8..]);
        if (version != Version) return (null, $"it has format version {version}, and this program reads version {Version}");
        TokenFileLayout layout = new(
            BinaryPrimitives.ReadInt32LittleEndian(header[20..]),
            BinaryPrimitives.ReadInt64LittleEndian(header[24..]),
            BinaryPrimitives.ReadInt64LittleEndian(header[32..]),
            BinaryPrimitives.ReadInt64LittleEndian(header[40..]),
            Encoding.ASCII.GetString(header.Slice(48, HashBytes)).TrimEnd('\0'),
            (EndOfText)header[EndOfTextAt],
            header.Slice(ChecksumAt, SHA256.HashSizeInBytes).ToArray());
        bool sane = BinaryPrimitives.ReadInt32LittleEndian(header[12..]) == HeaderBytes && Problem(layout.VocabularySize, layout.TokenizerHash) is null
            && BinaryPrimitives.ReadInt32LittleEndian(header[16..]) == layout.Width
            && Enum.IsDefined(layout.EndOfText) && !header[RestAt..HeaderBytes].ContainsAnyExcept((byte)0)
            // Bounded by the file first, so that the products below cannot overflow.
            && layout.Count >= 0 && layout.Count <= fileBytes && layout.Documents >= 0 && layout.Documents <= fileBytes && layout.TextBytes >= 0;
        if (!sane) return (null, "its header contradicts itself");
        return layout.FileBytes == fileBytes ? (layout, "") : (null, $"it has {fileBytes} bytes instead of {layout.FileBytes}");
    }

    public byte[] WithoutChecksum() => (this with { Checksum = new byte[SHA256.HashSizeInBytes] }).Write();

    /// <summary>Ids as they stand in a file. The format is little-endian, and so is every machine that this runs on (linux-x64).</summary>
    /// <returns>The first id that is not in the vocabulary, and then nothing is written; null when all are.</returns>
    public static int? Pack(ReadOnlySpan<int> ids, int vocabularySize, Span<byte> into)
    {
        if (!Ids.AreBelow(ids, vocabularySize))
        {
            foreach (int id in ids)
                if ((uint)id >= (uint)vocabularySize) return id;
        }
        if (WidthFor(vocabularySize) == sizeof(int))
        {
            MemoryMarshal.AsBytes(ids).CopyTo(into);
            return null;
        }
        Ids.Narrow(ids, MemoryMarshal.Cast<byte, ushort>(into));
        return null;
    }
}
