namespace NopeGpt.Data.Documents.Framing;

/// <summary>csv and tsv (RFC 4180): the first row names the columns; a field in quotation marks may hold line ends, and two marks stand for one.
/// A mark inside a field that does not begin with one is an ordinary character.</summary>
internal sealed class CsvFraming : Framing
{
    private const byte Quote = (byte)'"';
    private int _searched;
    private State _state = State.FieldStart;

    private enum State
    {
        FieldStart,
        Plain,
        Quoted,
        QuoteInQuoted,
    }

    public byte Delimiter { get; private set; } = (byte)',';

    /// <summary>The columns' names; there once the preamble is read.</summary>
    public string[] Columns { get; private set; } = [];

    public required bool Tabs { get; init; }

    public override int Preamble(ReadOnlySpan<byte> data, bool final)
    {
        if (data.Length < 3 && !final) return -1;
        int mark = ByteOrderMark(data);
        ReadOnlySpan<byte> rest = data[mark..];
        if (rest.IsEmpty) return mark;
        Delimiter = Tabs ? (byte)'\t' : Guess(rest);
        int next = Next(rest, final, out Frame header);
        // Another separator may be the likelier one when more of the row is there, so each look begins anew.
        (_searched, _state) = (0, State.FieldStart);
        if (next < 0) return data.Length > MaximumBytes || final ? throw new InvalidDataException("the first row, which names the columns, does not end; a quotation mark may be missing") : -1;
        Columns = Names(rest.Slice(header.Start, header.Length));
        for (int i = 0; i < Columns.Length; i++)
            if (Columns.AsSpan(0, i).Contains(Columns[i])) throw new InvalidDataException($"the first row names the column \"{Columns[i]}\" twice; rename one");
        return mark + next;
    }

    public override int Next(ReadOnlySpan<byte> data, bool final, out Frame frame)
    {
        frame = default;
        int i = _searched;
        while (i < data.Length)
        {
            if (_state == State.Quoted)
            {
                int quote = data[i..].IndexOf(Quote);
                if (quote < 0)
                {
                    i = data.Length;
                    break;
                }
                i += quote + 1;
                _state = State.QuoteInQuoted;
                continue;
            }
            if (_state == State.Plain)
            {
                int stop = data[i..].IndexOfAny(Delimiter, (byte)'\n');
                if (stop < 0)
                {
                    i = data.Length;
                    break;
                }
                i += stop;
            }
            byte b = data[i++];
            if (b == '\n') return Row(data, i - 1, i, out frame);
            _state = b == Delimiter ? State.FieldStart : b == Quote && _state != State.Plain ? State.Quoted : State.Plain;
        }
        _searched = i;
        if (!final || _state == State.Quoted) return -1;
        return Row(data, data.Length, data.Length, out frame);
    }

    public override int Recover(ReadOnlySpan<byte> data, out Frame frame)
    {
        bool quoted = _state == State.Quoted;
        (_searched, _state) = (0, State.FieldStart);
        int line = data.IndexOf((byte)'\n');
        frame = new(0, 0, 0, quoted ? FrameKind.NeverCloses : FrameKind.TooLong);
        return quoted ? (line < 0 ? data.Length : line + 1) : -1;
    }

    public override long RowsIn(ReadOnlySpan<byte> stretch, Frame frame) => Math.Max(1, Lines(stretch));

    private int Row(ReadOnlySpan<byte> data, int end, int next, out Frame frame)
    {
        (_searched, _state) = (0, State.FieldStart);
        if (end > 0 && data[end - 1] == '\r') end--;
        frame = new(0, end, 0, FrameKind.Whole);
        return next;
    }

    private string[] Names(ReadOnlySpan<byte> header)
    {
        List<string> names = [];
        CsvRow row = new(header, Delimiter);
        while (row.Next(out ReadOnlySpan<byte> field, out bool quoted)) names.Add(CsvRow.Text(field, quoted).Trim());
        return [.. names];
    }

    /// <summary>The likeliest separator: the one that the first line has most of, outside quotation marks.</summary>
    private static byte Guess(ReadOnlySpan<byte> data)
    {
        Span<int> counts = stackalloc int[4];
        ReadOnlySpan<byte> candidates = ",;\t|"u8;
        bool quoted = false;
        foreach (byte b in data)
        {
            if (b == '\n' && !quoted) break;
            if (b == Quote) quoted = !quoted;
            int which = candidates.IndexOf(b);
            if (!quoted && which >= 0) counts[which]++;
        }
        int best = 0;
        for (int i = 1; i < counts.Length; i++)
            if (counts[i] > counts[best]) best = i;
        return candidates[best];
    }
}
