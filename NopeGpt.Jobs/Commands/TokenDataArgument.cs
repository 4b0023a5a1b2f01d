using NopeGpt.Data;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Datasets;

namespace NopeGpt.Jobs.Commands;

/// <summary>A token file that a command was given: by the name of a data set of the store, as its folder, or as a file.</summary>
/// <param name="Path">The token file.</param>
/// <param name="IsRaw">It has nothing but uint16 ids.</param>
/// <param name="IsChat">A file of messages lies beside it.</param>
internal sealed record TokenDataArgument(string Path, bool IsRaw, bool IsChat)
{
    private const string Messages = ".messages", UsualEnding = ".bin";

    /// <summary>The ids of a raw file without a tokenizer may be any that two bytes hold.</summary>
    private const int RawVocabulary = 1 << 16;

    /// <summary>Null where the words name no token file: then they may be a source. What is wrong with those that must be one is added to the problems.</summary>
    public static TokenDataArgument? Find(Arguments arguments, System.CommandLine.Option<string?> root, string field, string words, bool raw)
    {
        if (Directory.Exists(words))
        {
            string inside = System.IO.Path.Combine(words, DatasetMaker.TokensName);
            return File.Exists(inside) ? Of(inside, raw: false) : null;
        }
        if (File.Exists(words))
        {
            if (words.EndsWith(Messages, StringComparison.OrdinalIgnoreCase))
            {
                if (Beside(words) is { } tokens) return Of(tokens, raw: false);
                arguments.Add(field, words, $"the token file that belongs to it, {System.IO.Path.ChangeExtension(words, UsualEnding)}, is not beside it: restore that file, or prepare the conversations again");
                return new(words, IsRaw: false, IsChat: true);
            }
            return raw || TokenFile.IsTokenFile(words) ? Of(words, raw) : null;
        }
        if (!Store.IsName(words)) return null;
        string named = arguments.Store(root).DatasetTokens(words);
        return File.Exists(named) ? Of(named, raw: false) : null;
    }

    /// <summary>Adds the problem that words name nothing.</summary>
    /// <param name="also">What else would have done.</param>
    public static void Missing(Arguments arguments, System.CommandLine.Option<string?> root, string field, string words, string also = "")
    {
        if (File.Exists(words))
        {
            arguments.Add(field, words, $"it is not a token file (its first bytes are others): give one that was prepared here{also}; --raw_tokens reads uint16 ids such as nanoGPT's train.bin");
            return;
        }
        if (Directory.Exists(words))
        {
            arguments.Add(field, words, $"the folder has no {DatasetMaker.TokensName}: give the folder of a data set{also}");
            return;
        }
        string[] known = Store.IsName(words) ? [.. new DatasetCatalog(arguments.Store(root)).Datasets().Select(d => d.Name)] : [];
        string? nearest = Configuration.Settings.Nearest(words, known);
        arguments.Add(field, words, $"there is no such file, folder or data set of the store{(nearest is null ? "" : $" (did you mean {nearest}?)")}: name {(known.Length > 0 ? $"one of {string.Join(", ", known.Take(20))}, or " : "")}a token file{also}");
    }

    /// <summary>Opens it.</summary>
    /// <param name="tokenizer">The one that is named for it; null takes the one beside it, if any.</param>
    /// <exception cref="InvalidDataException">It is damaged, or was made with another tokenizer.</exception>
    public OpenedTokens Open(TokenizerArgument? tokenizer, IReadOnlyList<string> places, EncodingDownload? download)
    {
        string beside = Store.TokenizerBeside(System.IO.Path.GetFullPath(Path));
        (Tokenizer? found, string? problem) = tokenizer is not null ? (tokenizer.Load(), null) : TryLoad(beside, places, download);
        TokenFile? file = null;
        ChatFile? chat = null;
        try
        {
            if (IsChat) chat = ChatFile.Open(Path);
            file = chat?.Tokens ?? (IsRaw ? OpenRaw(found) : TokenFile.Open(Path));
            try { found = found is null ? null : file.CheckTokenizer(found, tokenizer?.Name ?? beside); }
            catch (InvalidDataException e) when (tokenizer is null) { (found, problem) = (null, e.Message); }
            return new(file, chat, found, tokenizer?.Name ?? beside, problem);
        }
        catch
        {
            chat?.Dispose();
            file?.Dispose();
            throw;
        }
    }

    private static (Tokenizer?, string?) TryLoad(string beside, IReadOnlyList<string> places, EncodingDownload? download)
    {
        if (!File.Exists(beside)) return (null, $"no {Tokenizer.FileName} lies beside the file: name its tokenizer with --tokenizer");
        try { return (Tokenizer.Load(beside, places, download), null); }
        catch (Exception e) when (e is FileNotFoundException or InvalidDataException) { return (null, e.Message); }
    }

    private TokenFile OpenRaw(Tokenizer? tokenizer)
    {
        try { return TokenFile.OpenRaw(Path, tokenizer?.VocabularySize ?? RawVocabulary, tokenizer?.Hash ?? ""); }
        catch (ArgumentException e) { throw new InvalidDataException($"The raw token file {Path} cannot be used: {e.Message.Split(" (Parameter")[0]}", e); }
    }

    private static TokenDataArgument Of(string path, bool raw) => new(path, raw, !raw && File.Exists(System.IO.Path.ChangeExtension(path, Messages)));

    private static string? Beside(string messages)
    {
        string usual = System.IO.Path.ChangeExtension(messages, UsualEnding), stem = System.IO.Path.GetFileNameWithoutExtension(messages);
        if (File.Exists(usual)) return usual;
        return Directory.EnumerateFiles(System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(messages))!, stem + ".*").Order(StringComparer.Ordinal).FirstOrDefault(TokenFile.IsTokenFile);
    }
}

/// <summary>A token file that is open, and what can be said of its tokenizer.</summary>
/// <param name="Chat">The conversations that its documents are; null for plain text.</param>
/// <param name="Tokenizer">The one that made it; null where it is not known.</param>
/// <param name="From">Where that tokenizer is, or would be.</param>
/// <param name="Problem">Why it is not known.</param>
internal sealed record OpenedTokens(TokenFile File, ChatFile? Chat, Tokenizer? Tokenizer, string From, string? Problem) : IDisposable
{
    public void Dispose()
    {
        if (Chat is not null) Chat.Dispose();
        else File.Dispose();
    }
}
