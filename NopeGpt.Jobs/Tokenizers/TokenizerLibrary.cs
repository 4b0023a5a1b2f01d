using System.Text.Json;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Configuration;

namespace NopeGpt.Jobs.Tokenizers;

/// <summary>The tokenizers of a store: tokenizers/NAME with tokenizer.json and info.json. They come and go as whole folders.</summary>
public sealed class TokenizerLibrary(Store store)
{
    private const string InfoName = "info.json";

    /// <summary>A tokenizer.json of 200,000 tokens has about 10 MB.</summary>
    private const long LargestFile = 1L << 30;

    /// <summary>Names of the tokenizers in alphabetical order.</summary>
    public IReadOnlyList<string> Names =>
        [.. Directory.EnumerateDirectories(store.TokenizersFolder).Where(folder => Store.IsName(Path.GetFileName(folder)) && Tokenizer.FileIn(folder) is not null)
            .Select(folder => Path.GetFileName(folder)).Order(StringComparer.Ordinal)];

    public bool Contains(string name) => Store.IsName(name) && Directory.Exists(store.TokenizerFolder(name));

    /// <summary>Loads one of the store, or a published encoding whose file is here; nothing is downloaded.</summary>
    /// <exception cref="FileNotFoundException">There is none, or the file of the encoding is not here.</exception>
    /// <exception cref="InvalidDataException">Its file is damaged.</exception>
    public Tokenizer Load(string name) => Tokenizer.Load(Contains(name) ? store.TokenizerFolder(name) : name, store.TokenizerPlaces);

    /// <summary>Where it comes from; null where that is not known.</summary>
    public TokenizerInfo? Info(string name)
    {
        try { return JsonSerializer.Deserialize<TokenizerInfo>(File.ReadAllText(Path.Combine(store.TokenizerFolder(name), InfoName)), Settings.Json); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or JsonException) { return null; }
    }

    /// <summary>Whether a tokenizer of that name was trained or imported by itself, and did not come with a data set.</summary>
    public bool HasOrigin(string name) => Store.IsName(name) && File.Exists(Path.Combine(store.TokenizerFolder(name), InfoName));

    /// <summary>Whether a tokenizer of that name is there and was trained in the same way. The text may have changed since.</summary>
    public bool IsMadeBy(TokenizerConfig recipe)
    {
        ArgumentNullException.ThrowIfNull(recipe);
        // Lists in records are compared by their place in memory, so the texts are compared.
        return Contains(recipe.Name) && Info(recipe.Name)?.Recipe is { } made && JsonSerializer.Serialize(made, Settings.Json) == JsonSerializer.Serialize(recipe, Settings.Json);
    }

    /// <summary>Bytes of its files.</summary>
    public long Size(string name) => new DirectoryInfo(store.TokenizerFolder(name)).EnumerateFiles().Sum(file => file.Length);

    /// <summary>When it came into the store.</summary>
    public DateTimeOffset Made(string name) =>
        Info(name)?.Made ?? new DateTimeOffset(File.GetLastWriteTimeUtc(Tokenizer.FileIn(store.TokenizerFolder(name)) ?? store.TokenizerFolder(name)), TimeSpan.Zero);

    /// <summary>Puts a tokenizer into the store; it appears under its name only when whole.</summary>
    /// <exception cref="UserException">The name cannot be one, or is taken.</exception>
    public void Add(string name, Tokenizer tokenizer, TokenizerInfo info)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        if (Refusal(name) is { } reason) throw new UserException($"tokenizer.name = {name}: {reason}");
        // A name with a leading dot is never listed.
        string final = store.TokenizerFolder(name), aside = Path.Combine(store.TokenizersFolder, $".{name}.{Guid.NewGuid():N}.new");
        try
        {
            Directory.CreateDirectory(aside);
            tokenizer.Save(aside);
            using (FileStream file = new(Path.Combine(aside, InfoName), FileMode.CreateNew))
            {
                JsonSerializer.Serialize(file, info, Settings.Json);
                file.Flush(flushToDisk: true);
            }
            Directory.Move(aside, final);
        }
        catch (IOException) when (Directory.Exists(final)) { throw new UserException($"tokenizer.name = {name}: {Taken(name)}"); }
        finally
        {
            if (Directory.Exists(aside)) Directory.Delete(aside, recursive: true);
        }
    }

    /// <summary>Takes a tokenizer of this machine into the store: a folder, or a file (tokenizer.json, GPT-2's encoder.json or vocab.bpe with the other beside it,
    /// llama2.c's tokenizer.bin, a published NAME.tiktoken). The file of a published encoding is kept in the store's cache.</summary>
    /// <param name="name">Under which it is known; of a published encoding it may be empty: then it keeps its own.</param>
    /// <returns>The name under which it is known.</returns>
    /// <exception cref="UserException">Name or path cannot be used; one sentence for each with the cure.</exception>
    public string Import(string path, string name, DateTimeOffset now)
    {
        ArgumentNullException.ThrowIfNull(path);
        ArgumentNullException.ThrowIfNull(name);
        List<string> wrong = [];
        Tokenizer? tokenizer = null;
        string full = path.Trim();
        try { tokenizer = Read(full = Full(full)); }
        catch (Exception e) when (e is IOException or InvalidDataException or UnauthorizedAccessException or UserException) { wrong.Add(e.Message); }
        bool published = tokenizer?.PublishedName is { } own && (name.Length == 0 || name == own);
        if (!published && Refusal(name) is { } reason) wrong.Add($"The name {(name.Length == 0 ? "is empty: give it one" : $"'{name}' {reason}")}.");
        if (tokenizer is null || wrong.Count > 0) throw new UserException(string.Join(' ', wrong));
        try
        {
            KeepEncoding(tokenizer, full);
            if (!published) Add(name, tokenizer, new TokenizerInfo { Made = now, ImportedFrom = full });
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new UserException($"{store.TokenizersFolder} cannot be written ({e.Message.TrimEnd('.')}): make room or mend its rights", ExitCode.DiskFull);
        }
        return published ? tokenizer.PublishedName! : name;
    }

    /// <summary>Removes a tokenizer. Data sets, checkpoints and models have copies of their own and stay whole.</summary>
    /// <exception cref="UserException">There is none, or it cannot be removed.</exception>
    public void Delete(string name)
    {
        if (!Contains(name)) throw new UserException($"there is no tokenizer {name} in the store");
        string old = Path.Combine(store.TokenizersFolder, $".{name}.{Guid.NewGuid():N}.old");
        try
        {
            Directory.Move(store.TokenizerFolder(name), old);
            Directory.Delete(old, recursive: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new UserException($"the tokenizer {name} cannot be removed ({e.Message.TrimEnd('.')}): mend the rights of {store.TokenizersFolder}", ExitCode.DiskFull);
        }
    }

    private string? Refusal(string name) => RunConfigChecks.TokenizerNameProblem(name) ?? (Contains(name) ? Taken(name) : null);

    private string Taken(string name) => $"is taken ({store.TokenizerFolder(name)}): choose another, or delete that tokenizer";

    private static string Full(string path)
    {
        if (path.Length == 0) throw new UserException("The path is empty: give the file or the folder of a tokenizer on this machine.");
        if (path.Contains('\0', StringComparison.Ordinal)) throw new UserException("The path has a character that no file name can have.");
        string full = Path.GetFullPath(path);
        if (!Path.Exists(full)) throw new UserException($"{full} does not exist: give the file or the folder of a tokenizer on this machine.");
        return full;
    }

    private Tokenizer Read(string full)
    {
        string file = Directory.Exists(full) ? Tokenizer.FileIn(full) ?? Only(full) ?? full : full;
        if (File.Exists(file) && new FileInfo(file).Length > LargestFile) throw new UserException($"{file} has more than {LargestFile >> 20} MiB: it is no tokenizer.");
        return Tokenizer.Load(file, [.. store.TokenizerPlaces, Directory.Exists(full) ? full : Path.GetDirectoryName(full)!]);
    }

    /// <summary>The only file of a folder that is a tokenizer by its ending alone.</summary>
    private static string? Only(string folder)
    {
        string[] files = [.. Directory.EnumerateFiles(folder).Where(file => Path.GetExtension(file) == ".tiktoken" || Path.GetFileName(file) == "tokenizer.bin").Take(2)];
        return files.Length == 1 ? files[0] : null;
    }

    /// <summary>A tokenizer.json that only names an encoding would be of no use without its file.</summary>
    private void KeepEncoding(Tokenizer tokenizer, string full)
    {
        if (tokenizer.PublishedName is not { } name || PublishedFile.Named(name) is not { IsIncluded: false } encoding || encoding.Find(store.TokenizerPlaces) is not null) return;
        string source = encoding.Find([Directory.Exists(full) ? full : Path.GetDirectoryName(full)!])!, kept = Path.Combine(store.CacheFolder, encoding.FileName), aside = $"{kept}.{Guid.NewGuid():N}.new";
        try
        {
            File.Copy(source, aside);
            File.Move(aside, kept, overwrite: true);
        }
        finally { File.Delete(aside); }
    }
}
