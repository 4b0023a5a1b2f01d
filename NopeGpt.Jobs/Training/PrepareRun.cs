using System.Security.Cryptography;
using System.Text.Json;
using NopeGpt.Data;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Jobs.Training;

/// <summary>What a prepared data set is: dataset.json beside its token file.</summary>
/// <param name="SourceHash">SHA-256 of the source file; null for stories, which recipe and seed decide.</param>
public sealed record DatasetInfo(PrepareConfig Recipe, ulong Seed, string RunId, long Documents, long TextBytes, long Tokens, int VocabularySize, string TokenizerHash, string? SourceHash);

/// <summary>Makes a data set: documents, a tokenizer trained on them, and a token file. The data set's folder appears under its final
/// name only when whole; the tokenizer of that name is copied from it.</summary>
internal sealed class PrepareRun(RunContext run)
{
    private const string InfoName = "dataset.json";

    private PrepareConfig Recipe => run.Config.Prepare;
    private string TokenizerCopy => Path.Combine(run.Store.TokenizerFolder(Recipe.Dataset), "tokenizer.json");

    public void Run()
    {
        IReadOnlyList<Model.Problem> problems = RunConfigChecks.All(run.Config, run.Store);
        if (problems.Count > 0) throw new ProblemsException(problems);
        run.Events.Write(new StartedEvent(run.Events.Attempts + 1, 0, Environment.ProcessId, $"cpu, {Environment.ProcessorCount} cores"));
        string final = run.Store.DatasetFolder(Recipe.Dataset);
        string? sourceHash = Recipe.Source == "stories" ? null : HashFile(Recipe.Source);
        if (Directory.Exists(final) && UseExisting(final, sourceHash)) return;
        // A name with a leading dot is never listed as a data set.
        string aside = Path.Combine(run.Store.DatasetsFolder, $".{Recipe.Dataset}.{run.Folder.Id}.new");
        if (Directory.Exists(aside)) Directory.Delete(aside, recursive: true);
        Directory.CreateDirectory(aside);
        try
        {
            Publish(aside, final, Make(aside, sourceHash));
        }
        catch (OperationCanceledException)
        {
            throw new StoppedException("stopped; preparing starts from the beginning when resumed");
        }
        finally
        {
            if (Directory.Exists(aside)) Directory.Delete(aside, recursive: true);
        }
    }

    private DatasetInfo Make(string folder, string? sourceHash)
    {
        CancellationToken cancel = run.Stop.Token;
        string source = Recipe.Source;
        if (source == "stories")
        {
            source = Path.Combine(folder, "stories.jsonl");
            StoryGenerator.WriteCorpus(source, Recipe.CorpusBytes, run.Config.Seed, Progress("writing stories", 0, 0.2), cancel);
        }
        Tokenizer tokenizer = BytePairTrainer.Train(TextFiles.Documents(source), Recipe.VocabularySize, progress: Progress("training the tokenizer", 0.2, 0.7), cancel: cancel);
        tokenizer.Save(folder);
        (long documents, long bytes, long tokens) = WriteTokens(source, Path.Combine(folder, "tokens.bin"), tokenizer, Progress("encoding", 0.7, 1), cancel);
        if (documents == 0) throw new UserException($"{source} holds no text: choose a file with documents");
        double ratio = (double)bytes / (tokens - documents);
        run.Log($"{documents} documents, {bytes} bytes, {tokens} tokens of {tokenizer.VocabularySize}: {ratio:0.00} bytes a token");
        run.Events.Write(new MetricsEvent(0, 0, tokens, null, new Dictionary<string, double>
        {
            ["data/documents"] = documents, ["data/bytes"] = bytes, ["data/tokens"] = tokens, ["data/bytes_per_token"] = ratio, ["data/vocabulary_size"] = tokenizer.VocabularySize,
        }));
        return new DatasetInfo(Recipe, run.Config.Seed, run.Folder.Id, documents, bytes, tokens, tokenizer.VocabularySize, tokenizer.Hash, sourceHash);
    }

    /// <summary>Every document followed by end-of-text. Encoding runs on all cores; the order is the source's.</summary>
    private static (long Documents, long Bytes, long Tokens) WriteTokens(string source, string path, Tokenizer tokenizer, Action<double> progress, CancellationToken cancel)
    {
        long size = Math.Max(1, new FileInfo(source).Length), documents = 0, bytes = 0, tokens = 0;
        using TokenFileWriter writer = new(path, tokenizer.VocabularySize, tokenizer.Hash);
        var encoded = TextFiles.Documents(source).AsParallel().AsOrdered().WithCancellation(cancel).Select(text =>
        {
            List<int> ids = tokenizer.Encode(text);
            ids.Add(tokenizer.EndOfTextId);
            return (Ids: ids, Bytes: System.Text.Encoding.UTF8.GetByteCount(text));
        });
        foreach ((List<int> ids, int length) in encoded)
        {
            writer.Append(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(ids), length);
            documents++;
            bytes += length;
            tokens += ids.Count;
            if (documents % 256 == 0) progress(Math.Min(1, (double)bytes / size));
        }
        writer.Complete();
        return (documents, bytes, tokens);
    }

    private void Publish(string aside, string final, DatasetInfo info)
    {
        File.WriteAllText(Path.Combine(aside, InfoName), JsonSerializer.Serialize(info, Configuration.Settings.Json) + "\n");
        // Another run may have made the same data set meanwhile: the first one counts.
        while (!TryMove(aside, final))
            if (UseExisting(final, info.SourceHash)) return;
        CopyTokenizer(final);
        run.Events.Write(new ProgressEvent("the data set is ready", 1));
        run.Log($"data set {Recipe.Dataset}: {final}");
    }

    private static bool TryMove(string from, string to)
    {
        try { Directory.Move(from, to); }
        catch (IOException) when (Directory.Exists(to)) { return false; }
        return true;
    }

    private void CopyTokenizer(string final)
    {
        string file = TokenizerCopy;
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        string aside = $"{file}.{run.Folder.Id}.new";
        File.Copy(Path.Combine(final, "tokenizer.json"), aside, overwrite: true);
        File.Move(aside, file, overwrite: true);
    }

    /// <summary>The same recipe, seed and source give the same bytes, so a whole data set of theirs is the result.</summary>
    /// <returns>False when the data set was damaged and is gone now.</returns>
    private bool UseExisting(string final, string? sourceHash)
    {
        DatasetInfo? info = null;
        try { info = JsonSerializer.Deserialize<DatasetInfo>(File.ReadAllText(Path.Combine(final, InfoName)), Configuration.Settings.Json); }
        catch (Exception e) when (e is IOException or JsonException) { run.Warn($"{Path.Combine(final, InfoName)} cannot be read: {e.Message}"); }
        if (info is null || info.Recipe != Recipe || info.Seed != run.Config.Seed)
            throw new UserException($"prepare.dataset = {Recipe.Dataset}: a data set of that name was made in another way ({final}); choose another name or delete that folder");
        if (info.SourceHash != sourceHash)
            throw new UserException($"prepare.source = {Recipe.Source}: the file has changed since data set {Recipe.Dataset} was made from it ({final}); choose another name or delete that folder");
        if (Damage(final) is { } damage)
        {
            run.Warn($"{damage} The data set {Recipe.Dataset} is damaged and made anew.");
            string old = Path.Combine(run.Store.DatasetsFolder, $".{Recipe.Dataset}.{run.Folder.Id}.old");
            if (Directory.Exists(old)) Directory.Delete(old, recursive: true);
            Directory.Move(final, old);
            Directory.Delete(old, recursive: true);
            return false;
        }
        if (!File.Exists(TokenizerCopy)) CopyTokenizer(final);
        run.Log($"data set {Recipe.Dataset} is there already, made by run {info.RunId}");
        run.Events.Write(new ProgressEvent("the data set was there already", 1));
        return true;
    }

    /// <summary>What is wrong with the files of a data set, as a sentence; null when they are whole.</summary>
    private string? Damage(string final)
    {
        try
        {
            using TokenFile tokens = TokenFile.Open(run.Store.DatasetTokens(Recipe.Dataset));
            tokens.Verify();
            return Tokenizer.Load(final, run.Store.TokenizerPlaces, run.Store.TokenizerDownload).Hash == tokens.TokenizerHash ? null : $"The tokenizer in {final} is not the one that made its tokens.";
        }
        catch (Exception e) when (e is InvalidDataException or FileNotFoundException) { return e.Message; }
    }

    private static string HashFile(string path)
    {
        using FileStream stream = File.OpenRead(path);
        return Convert.ToHexStringLower(SHA256.HashData(stream));
    }

    private Action<double> Progress(string stage, double from, double to)
    {
        long last = 0;
        run.Events.Write(new ProgressEvent(stage, from));
        run.Log(stage);
        return done =>
        {
            long now = run.Time.GetTimestamp();
            if (last != 0 && run.Time.GetElapsedTime(last, now) < TimeSpan.FromMilliseconds(250)) return;
            last = now;
            run.Events.Write(new ProgressEvent(stage, from + ((to - from) * Math.Clamp(done, 0, 1))));
        };
    }
}
