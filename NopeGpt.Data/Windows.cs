namespace NopeGpt.Data;

/// <summary>The windows into which a token file is cut: numbered stretches of tokens, each token of which has the one after it as its target.</summary>
internal abstract class Windows
{
    public abstract long Count { get; }

    /// <summary>The first token of a window and how many there are; its last target is one further.</summary>
    public abstract (long Start, int Length) this[long window] { get; }
}

/// <summary>Windows that follow each other wherever documents end. They cost nothing.</summary>
internal sealed class PackedWindows(TokenFile file, int length) : Windows
{
    public override long Count { get; } = Math.Max(0, (file.Count - 1) / length);

    public override (long Start, int Length) this[long window] => (window * length, length);
}

/// <summary>Windows that each lie in one document. The index is read once, and of every <see cref="Stride"/> documents one number is kept; a window's
/// document is found between two of them in the file.</summary>
internal sealed class DocumentWindows : Windows
{
    private const int Stride = 256, ChunkStrides = 64;
    private readonly TokenFile _file;
    private readonly int _length;
    private readonly List<long> _before = [0];

    public DocumentWindows(TokenFile file, int length)
    {
        (_file, _length) = (file, length);
        long[] starts = new long[(Stride * ChunkStrides) + 1];
        long count = 0;
        for (long first = 0; first < file.DocumentCount; first += Stride * ChunkStrides)
        {
            int documents = (int)Math.Min(Stride * ChunkStrides, file.DocumentCount - first);
            file.Starts(first, starts.AsSpan(0, documents + 1));
            for (int i = 0; i < documents; i++)
            {
                count += In(starts[i + 1] - starts[i]);
                if ((i + 1) % Stride == 0 || i == documents - 1) _before.Add(count);
            }
        }
        Count = count;
    }

    public override long Count { get; }

    public override (long Start, int Length) this[long window]
    {
        get
        {
            if (window < 0 || window >= Count) throw new ArgumentOutOfRangeException(nameof(window), window, $"The window {window} is not one of {Count}.");
            // Strides whose documents have no windows have the number of the one behind them; the last of equals is meant.
            int low = 0, high = _before.Count - 2;
            while (low < high)
            {
                int middle = low + ((high - low + 1) / 2);
                if (_before[middle] <= window) low = middle;
                else high = middle - 1;
            }
            long first = (long)low * Stride, left = window - _before[low];
            Span<long> starts = stackalloc long[(int)Math.Min(Stride, _file.DocumentCount - first) + 1];
            _file.Starts(first, starts);
            for (int i = 0; i + 1 < starts.Length; i++)
            {
                long windows = In(starts[i + 1] - starts[i]);
                if (left < windows)
                {
                    long start = starts[i] + (left * _length);
                    return (start, (int)Math.Min(_length, starts[i + 1] - 1 - start));
                }
                left -= windows;
            }
            throw new InvalidDataException($"The token file {_file.Path} has changed since it was opened; start again.");
        }
    }

    /// <summary>Windows of a document: all its tokens but the last, to predict those that follow them.</summary>
    private long In(long tokens) => tokens < 2 ? 0 : (tokens - 2 + _length) / _length;
}
