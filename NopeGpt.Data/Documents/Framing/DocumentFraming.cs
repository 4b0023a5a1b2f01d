namespace NopeGpt.Data.Documents.Framing;

/// <summary>txt: documents separated by lines that are exactly &lt;|endoftext|&gt;. A document that is too long is cut at a line end.</summary>
internal sealed class DocumentFraming : Framing
{
    private static ReadOnlySpan<byte> Separator => "<|endoftext|>"u8;

    private int _searched;

    public override int Preamble(ReadOnlySpan<byte> data, bool final) => data.Length < 3 && !final ? -1 : ByteOrderMark(data);

    public override int Next(ReadOnlySpan<byte> data, bool final, out Frame frame)
    {
        int from = _searched;
        frame = default;
        while (data[from..].IndexOf(Separator) is int found and >= 0)
        {
            int start = from + found, end = start + Separator.Length;
            bool begins = start == 0 || data[start - 1] is (byte)'\n' or (byte)'\r';
            // The line end is one or two bytes; without them all, wait for more.
            if (begins && !final && end + 2 > data.Length) return Wait(start);
            if (begins && (end == data.Length || data[end] is (byte)'\n' or (byte)'\r'))
            {
                int next = end == data.Length ? end : data[end] == '\r' && end + 1 < data.Length && data[end + 1] == '\n' ? end + 2 : end + 1;
                return Document(start, next, out frame);
            }
            from = end;
        }
        if (final) return Document(data.Length, data.Length, out frame);
        // A separator may have begun in the last bytes.
        return Wait(Math.Max(_searched, data.Length - Separator.Length));
    }

    public override int Recover(ReadOnlySpan<byte> data, out Frame frame)
    {
        ReadOnlySpan<byte> most = data[..Math.Min(data.Length, MaximumBytes)];
        int length = most.LastIndexOf((byte)'\n') + 1;
        if (length == 0)
        {
            // A single line: between two characters, which have at most four bytes.
            length = most.Length;
            for (int back = 0; back < 4 && length > 1 && (data[Math.Min(length, data.Length - 1)] & 0xc0) == 0x80; back++) length--;
        }
        _searched = 0;
        frame = new(0, length, 0, FrameKind.Part);
        return length;
    }

    public override long RowsIn(ReadOnlySpan<byte> stretch, Frame frame) => Lines(stretch);

    private int Document(int length, int next, out Frame frame)
    {
        _searched = 0;
        frame = new(0, length, 0, length == 0 ? FrameKind.Empty : FrameKind.Whole);
        return next;
    }

    private int Wait(int searched)
    {
        _searched = searched;
        return -1;
    }
}
