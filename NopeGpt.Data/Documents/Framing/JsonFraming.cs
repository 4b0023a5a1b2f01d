using System.Buffers;

namespace NopeGpt.Data.Documents.Framing;

/// <summary>json: the elements of one array, or values one after the other. Only brackets and quotation marks are looked at, so that an element
/// which is broken inside does not hide the ones behind it.</summary>
internal sealed class JsonFraming : Framing
{
    /// <summary>What may be looked through again in a file of elements that do not close; behind that, the rest is given up.</summary>
    private const long MostRescanned = 2L << 30;

    private static readonly SearchValues<byte> _marks = SearchValues.Create("\"[]{}"u8), _textMarks = SearchValues.Create("\"\\"u8), _scalarEnds = SearchValues.Create(" \t\r\n,]}"u8);
    private int _searched;
    private int _start = -1;
    private int _depth;
    private bool _inText;
    private bool _inScalar;
    private bool _inArray;
    private bool _closed;
    private int _indent = -1;
    private long _rescanned;

    public override int Preamble(ReadOnlySpan<byte> data, bool final)
    {
        if (data.Length < 3 && !final) return -1;
        int mark = ByteOrderMark(data);
        int start = data.Length - data[mark..].TrimStart(" \t\r\n"u8).Length;
        if (start > MaximumBytes) throw new InvalidDataException("the file begins with white space only; get it again");
        if (start == data.Length) return final ? start : -1;
        _inArray = data[start] == '[';
        return _inArray ? start + 1 : mark;
    }

    public override string? EndProblem => _inArray && !_closed ? "the array does not close: the file may end early; get it again" : null;

    public override int Next(ReadOnlySpan<byte> data, bool final, out Frame frame)
    {
        frame = default;
        if (_start < 0 && !FindStart(data)) return final ? Passed(data.Length) : -1;
        bool found = _inScalar ? PassScalar(data, final) : PassBrackets(data);
        return found ? Element(_searched, out frame) : -1;
    }

    public override int Recover(ReadOnlySpan<byte> data, out Frame frame)
    {
        int start = Math.Max(0, _start);
        frame = new(start, 0, 0, data.Length > MaximumBytes ? FrameKind.TooLong : FrameKind.NeverCloses);
        _rescanned += data.Length;
        int next = _indent < 0 || _rescanned > MostRescanned ? data.Length : NextAtIndent(data, start, _indent);
        Reset();
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

    /// <summary>Goes to behind the bracket or quotation mark that closes the element.</summary>
    private bool PassBrackets(ReadOnlySpan<byte> data)
    {
        while (_searched < data.Length)
        {
            int next = data[_searched..].IndexOfAny(_inText ? _textMarks : _marks);
            if (next < 0)
            {
                _searched = data.Length;
                return false;
            }
            byte mark = data[_searched + next];
            // What follows a backslash closes nothing; it may not be there yet.
            if (mark == '\\' && _searched + next + 2 > data.Length)
            {
                _searched += next;
                return false;
            }
            _searched += next + (mark == '\\' ? 2 : 1);
            if (mark == '"') _inText = !_inText;
            else if (mark is (byte)'{' or (byte)'[') _depth++;
            else if (mark is (byte)'}' or (byte)']') _depth--;
            if (_depth <= 0 && !_inText) return true;
        }
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

    private void Reset() => (_start, _searched, _depth, _inText, _inScalar, _indent) = (-1, 0, 0, false, false, -1);

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
        return data.Length;
    }
}
