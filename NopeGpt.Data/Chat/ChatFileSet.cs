namespace NopeGpt.Data.Chat;

/// <summary>Several chat files as one: their conversations are numbered through, in the files' order. Safe for concurrent reading.</summary>
internal sealed class ChatFileSet
{
    private readonly IReadOnlyList<ChatFile> _files;
    private readonly long[] _ends;

    /// <exception cref="ArgumentException">There is no file, or they are of several tokenizers.</exception>
    public ChatFileSet(IReadOnlyList<ChatFile> files)
    {
        if (files.Count == 0) throw new ArgumentException("There must be a file of conversations.", nameof(files));
        if (files.FirstOrDefault(f => f.Tokens.TokenizerHash != files[0].Tokens.TokenizerHash) is { } other)
            throw new ArgumentException($"{other.Path} was made with another tokenizer than {files[0].Path}: prepare both with the same one.", nameof(files));
        _files = files;
        _ends = new long[files.Count];
        for (int i = 0; i < files.Count; i++)
        {
            Count += files[i].Count;
            _ends[i] = Count;
        }
    }

    /// <summary>Number of conversations.</summary>
    public long Count { get; }

    public int VocabularySize => _files[0].Tokens.VocabularySize;

    /// <summary>The files, for messages.</summary>
    public string Path => string.Join(" and ", _files.Select(f => f.Path));

    /// <inheritdoc cref="ChatFile.Cut"/>
    public ChatCut Cut(long number, ChatSampleOptions options) => File(ref number).Cut(number, options);

    /// <inheritdoc cref="ChatFile.Cuts"/>
    public IEnumerable<(int Tokens, ChatCut Cut)> Cuts(ChatSampleOptions options) => _files.SelectMany(f => f.Cuts(options));

    /// <inheritdoc cref="ChatFile.ReadSample"/>
    public int ReadSample(long number, ChatSampleOptions options, Span<long> tokens, Span<long> labels) => File(ref number).ReadSample(number, options, tokens, labels);

    /// <param name="number">Of a conversation; becomes its number within the file.</param>
    private ChatFile File(ref long number)
    {
        int file = 0;
        while (number >= _ends[file]) file++;
        if (file > 0) number -= _ends[file - 1];
        return _files[file];
    }
}
