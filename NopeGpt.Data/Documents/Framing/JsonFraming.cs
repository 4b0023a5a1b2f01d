using System.Buffers;

namespace NopeGpt.Data.Documents.Framing;

/// <summary>json: the elements of one array, which may stand in an object, or values one after the other. Only brackets and quotation marks are looked at, so that an element
/// which is broken inside does not hide the ones behind it.</summary>
internal sealed class JsonFraming : Framing
{
    /// <summary>What may be looked through again in a file of elements that do not close; behind that, the rest is given up.</summary>
    private const long MostRescanned = 2L << 30;

    private static readonly SearchValues<byte> _marks = SearchValues.Create("\"[]{}"u8), _textMarks = SearchValues.Create("\"\\"u8), _scalarEnds = SearchValues.Create(" \t\r\n,]}"u8);
    private int _searched;
    private int _start = -1;
    private readonly Stack<byte> _open = [];
    private bool _inText;
    private bool _escaped;
    private bool _broken;
    private bool _inScalar;
    private bool _inArray;
    private bool _closed;
    private int _indent = -1;
    private long _rescanned;

    /// <summary>Where the array begins that stands in an object (<see cref="JsonEnvelope"/>); null where none does.</summary>
    public long? ListAt { get; init; }

    public override int Preamble(ReadOnlySpan<byte> data, bool final)
    {
        if (ListAt is { } list)
        {
            if (list > MaximumBytes) throw new InvalidDataException($"more than {MaximumBytes} bytes stand before the list of records; put them behind it, or raise the limit");
            _inArray = true;
            return data.Length > list ? (int)list + 1 : final ? data.Length : More;
        }
        if (data.Length < 3 && !final) return More;
        int mark = ByteOrderMark(data);
        int start = data.Length - data[mark..].TrimStart(" \t\r\n"u8).Length;
        if (start > MaximumBytes) throw new InvalidDataException("the file begins with white space only; get it again");
        if (start == data.Length) return final ? start : More;
        _inArray = data[start] == '[';
        return _inArray ? start + 1 : mark;
    }

    public override string? EndProblem => _inArray && !_closed ? "the array does not close: the file may end early; get it again" : null;

    public override int Next(ReadOnlySpan<byte> data, bool final, out Frame frame)
    {
        frame = default;
        if (_start < 0 && !FindStart(data)) return final ? Passed(data.Length) : More;
        if (_inScalar ? PassScalar(data, final) : PassBrackets(data)) return Element(_searched, out frame);
        return _broken ? Broken : More;
    }

    public override int Recover(ReadOnlySpan<byte> data, bool final, out Frame frame)
    {
        int start = Math.Max(0, _start);
        bool tooLong = !final && !_broken;
        frame = new(start, 0, 0, tooLong ? FrameKind.TooLong : FrameKind.NeverCloses);
        _rescanned += data.Length;
        int next = _indent < 0 || _rescanned > MostRescanned ? -1 : NextAtIndent(data[..(int)Math.Min(data.Length, start + MaximumBytes + 1L)], start, _indent);
        if (next < 0 && tooLong)
        {
            // Its end may be far away; the search goes on from here.
            (_start, _searched) = (0, 0);
            return More;
        }
        if (next < 0) next = _broken ? _searched : data.Length;
        Reset();
        return next;
    }

    public override int Pass(ReadOnlySpan<byte> data)
    {
        bool ended = _inScalar ? PassScalar(data, final: false) : PassBrackets(data);
        int next = ended || _broken ? _searched : More;
        if (next >= 0) Reset();
        else _searched = 0;
        return next;
    }

    public override long RowsIn(ReadOnlySpan<byte> stretch, Frame frame) => frame.Length > 0 || frame.Kind != FrameKind.Whole ? 1 : 0;

    /// <summary>Finds the element's first byte, behind white space and what separates elements.</summary>
    private bool FindStart(ReadOnlySpan<byte> data)
    {
        ReadOnlySpan<byte> separators = _inArray ? " \t\r\n,]"u8 : " \t\r\n,"u8;
        int start = data.IndexOfAnyExcept(separators);
        _closed = _inArray && (start < 0 ? data : data[..start]).Contains((byte)']');
        if (start < 0) return false;
        int line = data[..start].LastIndexOf((byte)'\n');
        // Elements that do not begin a line cannot be told from what is inside another.
        _indent = line >= 0 && data[(line + 1)..start].IndexOfAnyExcept(" \t"u8) < 0 ? start - line - 1 : -1;
        _start = _searched = start;
        _inScalar = data[start] is not ((byte)'{' or (byte)'[' or (byte)'"');
        return true;
    }

    /// <summary>Goes to behind the bracket or quotation mark that closes the element; false when that is not there, or cannot come any more.</summary>
    private bool PassBrackets(ReadOnlySpan<byte> data)
    {
        while (_searched < data.Length)
        {
            if (_escaped)
            {
                // What follows a backslash closes nothing.
                (_searched, _escaped) = (_searched + 1, false);
                continue;
            }
            int next = data[_searched..].IndexOfAny(_inText ? _textMarks : _marks);
            if (next < 0)
            {
                _searched = data.Length;
                return false;
            }
            byte mark = data[_searched + next];
            _searched += next + 1;
            if (mark == '\\') _escaped = true;
            else if (mark == '"') _inText = !_inText;
            else if (mark is (byte)'{' or (byte)'[') _open.Push(mark);
            else if (!Close(mark)) return false;
            if (_open.Count == 0 && !_inText && !_escaped) return true;
        }
        return false;
    }

    /// <summary>Closes the innermost bracket of the kind, and those inside it that were left open; false when there is none.</summary>
    private bool Close(byte mark)
    {
        byte opening = mark == '}' ? (byte)'{' : (byte)'[';
        while (_open.TryPop(out byte innermost))
            if (innermost == opening) return true;
        _broken = true;
        return false;
    }

    /// <summary>Goes to the end of a number or word.</summary>
    private bool PassScalar(ReadOnlySpan<byte> data, bool final)
    {
        int from = Math.Max(_searched, _start + 1), next = data[from..].IndexOfAny(_scalarEnds);
        _searched = next < 0 ? data.Length : from + next;
        return next >= 0 || final;
    }

    private int Passed(int length)
    {
        Reset();
        return length;
    }

    private int Element(int end, out Frame frame)
    {
        frame = new(_start, end - _start, 0, FrameKind.Whole);
        Reset();
        return end;
    }

    private void Reset()
    {
        (_start, _searched, _indent) = (-1, 0, -1);
        (_inText, _inScalar, _escaped, _broken) = (false, false, false, false);
        _open.Clear();
    }

    /// <summary>The next line that begins with a bracket as far in as the element's own; -1 when there is none.</summary>
    private static int NextAtIndent(ReadOnlySpan<byte> data, int start, int indent)
    {
        int from = start;
        while (data[from..].IndexOf((byte)'\n') is int line and >= 0)
        {
            from += line + 1;
            ReadOnlySpan<byte> rest = data[from..];
            int spaces = rest.IndexOfAnyExcept(" \t"u8);
            if (spaces == indent && rest[spaces] is (byte)'{' or (byte)'[') return from;
        }
        return -1;
    }
}
