namespace NopeGpt.Data.Documents.Framing;

/// <summary>One record in a block of bytes.</summary>
/// <param name="Start">Its first byte in the block.</param>
/// <param name="Length">Bytes; 0 where the record itself was too long to keep.</param>
/// <param name="Row">Where it is in the file, from 1.</param>
/// <param name="Kind">Whether it can be parsed.</param>
internal readonly record struct Frame(int Start, int Length, long Row, FrameKind Kind);

internal enum FrameKind
{
    Whole,

    /// <summary>A part of a text document that is too long for one record; the next frame goes on with it.</summary>
    Part,

    /// <summary>A document without a character.</summary>
    Empty,

    TooLong,

    /// <summary>A JSON value or CSV row that never closes.</summary>
    NeverCloses,
}

/// <summary>Finds the ends of records in a file of one format. It holds the state of the record that is being searched, so that no byte is
/// looked at twice when a record arrives in pieces.</summary>
internal abstract class Framing
{
    /// <summary>The most bytes that one record may have.</summary>
    public required int MaximumBytes { get; init; }

    /// <summary>Reads what stands before the first record, such as a byte order mark or the names of columns.</summary>
    /// <param name="data">The file's first bytes.</param>
    /// <param name="final">True when that is all of it.</param>
    /// <returns>Its length; -1 when more bytes are needed to tell.</returns>
    /// <exception cref="InvalidDataException">The file cannot be one of this format.</exception>
    public abstract int Preamble(ReadOnlySpan<byte> data, bool final);

    /// <summary>Looks for the end of the record that begins at the data's first byte.</summary>
    /// <param name="final">True when the file ends with the data.</param>
    /// <param name="frame">Start and length of the record's content, relative to the data; a length of 0 means that there is nothing to parse.</param>
    /// <returns>Where the next record begins; -1 when more bytes are needed. Then the next call has the same bytes and more.</returns>
    public abstract int Next(ReadOnlySpan<byte> data, bool final, out Frame frame);

    /// <summary>Where to go on after the record that begins at the data's first byte turned out to be too long, or not to close before the file's end.</summary>
    /// <returns>Where the next record begins, or -1 to pass over everything up to the next line end.</returns>
    public abstract int Recover(ReadOnlySpan<byte> data, out Frame frame);

    /// <summary>What shows, behind the last record, that the file is not whole; null otherwise.</summary>
    public virtual string? EndProblem => null;

    /// <summary>The rows that a stretch from one record's beginning to the next one's counts for.</summary>
    public abstract long RowsIn(ReadOnlySpan<byte> stretch, Frame frame);

    /// <summary>Bytes of a UTF-8 byte order mark; says clearly when the file is in UTF-16.</summary>
    protected static int ByteOrderMark(ReadOnlySpan<byte> data)
    {
        if (data.StartsWith((ReadOnlySpan<byte>)[0xff, 0xfe]) || data.StartsWith((ReadOnlySpan<byte>)[0xfe, 0xff]))
            throw new InvalidDataException("the file is in UTF-16; save it as UTF-8 (for example: iconv -f UTF-16 -t UTF-8)");
        return data.StartsWith((ReadOnlySpan<byte>)[0xef, 0xbb, 0xbf]) ? 3 : 0;
    }

    protected static long Lines(ReadOnlySpan<byte> stretch) => stretch.Count((byte)'\n');
}
