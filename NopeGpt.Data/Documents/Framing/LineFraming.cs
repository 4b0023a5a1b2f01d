namespace NopeGpt.Data.Documents.Framing;

/// <summary>jsonl: a record a line; lines of white space are passed over.</summary>
internal sealed class LineFraming : Framing
{
    private int _searched;

    public override int Preamble(ReadOnlySpan<byte> data, bool final) => data.Length < 3 && !final ? -1 : ByteOrderMark(data);

    public override int Next(ReadOnlySpan<byte> data, bool final, out Frame frame)
    {
        int end = data[_searched..].IndexOf((byte)'\n');
        if (end < 0 && !final)
        {
            _searched = data.Length;
            frame = default;
            return -1;
        }
        end = end < 0 ? data.Length : end + _searched;
        _searched = 0;
        ReadOnlySpan<byte> line = data[..end];
        int start = line.Length - line.TrimStart(" \t\r"u8).Length;
        frame = new(start, line[start..].TrimEnd(" \t\r"u8).Length, 0, FrameKind.Whole);
        return Math.Min(data.Length, end + 1);
    }

    public override int Recover(ReadOnlySpan<byte> data, out Frame frame)
    {
        _searched = 0;
        frame = new(0, 0, 0, FrameKind.TooLong);
        return -1;
    }

    public override long RowsIn(ReadOnlySpan<byte> stretch, Frame frame) => 1;
}
