using System.Security.Cryptography;
using NopeGpt.Data;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Datasets;
using NopeGpt.Jobs.Tokenizers;

namespace NopeGpt.Jobs.Training;

/// <summary>Makes a data set: documents, a tokenizer (trained on them, or a given one), and a token file. The data set's folder appears under its final
/// name only when whole; the tokenizer of that name is copied from it. What is finished when the run is stopped or killed lies in a folder of the
/// run's own, and it goes on from there.</summary>
internal sealed class PrepareRun(RunContext run)
{
    /// <summary>Larger files are known by name, size and time: hashing them would take as long as reading them once more.</summary>
    private const long HashedBytes = 1L << 30;

    /// <summary>Whether the name belongs to another data set, so that what is made has no place.</summary>
    private bool _isTaken;

    private PrepareConfig Recipe => run.Config.Prepare;
    private string TokenizerCopy => Path.Combine(run.Store.TokenizerFolder(Recipe.Dataset), "tokenizer.json");

    public void Run()
    {
        IReadOnlyList<Model.Problem> problems = RunConfigChecks.All(run.Config, run.Store);
        if (problems.Count > 0) throw new ProblemsException(problems);
        run.Events.Write(new StartedEvent(run.Events.Attempts + 1, 0, Environment.ProcessId, $"cpu, {Environment.ProcessorCount} cores"));
        string final = run.Store.DatasetFolder(Recipe.Dataset);
        string? sourceHash = Recipe.Source == PrepareConfig.Stories || OpenedSource.NameOf(Recipe.Source) is not null ? null : HashSource();
        // A name with a leading dot is never listed as a data set.
        string aside = Path.Combine(run.Store.DatasetsFolder, $".{Recipe.Dataset}.{run.Folder.Id}.new");
        bool refused = false;
        // Whatever ends the work, what is finished stays for the next attempt; it goes with the run.
        try
        {
            if (!Directory.Exists(final) || !UseExisting(final, sourceHash))
            {
                Directory.CreateDirectory(aside);
                Publish(aside, final, Make(aside, sourceHash));
            }
            if (Directory.Exists(aside)) Directory.Delete(aside, recursive: true);
        }
        catch (OperationCanceledException) { throw new StoppedException("stopped; preparing goes on from its last finished shard when resumed"); }
        catch (UserException)
        {
            refused = true;
            throw;
        }
        finally
        {
            if (refused && Directory.Exists(aside) && (_isTaken || !DatasetMaker.HasWork(aside))) Directory.Delete(aside, recursive: true);
        }
    }

    private DatasetInfo Make(string folder, string? sourceHash)
    {
        MakerReports reports = new(run.Log, run.Warn, run.Events.Write);
        DatasetInfo made = new DatasetMaker(run.Store, Recipe, run.Config.Seed, reports, run.Time).Make(folder, run.Stop.Token).Info with { RunId = run.Folder.Id, SourceHash = sourceHash };
        run.Log($"{made.Documents} documents, {made.TextBytes} bytes, {made.Tokens} tokens of {made.VocabularySize}: {made.BytesPerToken:0.00} bytes a token");
        run.Events.Write(new MetricsEvent(0, 0, made.Tokens, null, new Dictionary<string, double>
        {
            ["data/documents"] = made.Documents, ["data/bytes"] = made.TextBytes, ["data/tokens"] = made.Tokens, ["data/bytes_per_token"] = made.BytesPerToken,
            ["data/vocabulary_size"] = made.VocabularySize, ["data/duplicate_share"] = made.Statistics!.DuplicateShare,
        }));
        return made;
    }

    private void Publish(string aside, string final, DatasetInfo info)
    {
        info.Write(aside);
        // Another run may have made the same data set meanwhile: the first one counts.
        while (!TryMove(aside, final))
            if (UseExisting(final, info.SourceHash)) return;
        DatasetMaker.Finish(final);
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
        if (new TokenizerLibrary(run.Store).HasOrigin(Recipe.Dataset))
        {
            run.Log($"the tokenizer {Recipe.Dataset} of the store did not come with a data set and stays as it is; the data set has its own beside it");
            return;
        }
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
        try { info = DatasetInfo.Read(final); }
        catch (InvalidDataException e) { run.Warn(e.Message); }
        _isTaken = true;
        if (info is null || MakerState.Normal(info.Recipe) != MakerState.Normal(Recipe) || info.Seed != run.Config.Seed)
            throw new UserException($"prepare.dataset = {Recipe.Dataset}: a data set of that name was made in another way ({final}); choose another name or delete that folder");
        if (info.SourceHash != sourceHash)
            throw new UserException($"prepare.source = {Recipe.Source}: the file has changed since data set {Recipe.Dataset} was made from it ({final}); choose another name or delete that folder");
        _isTaken = false;
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
            tokens.CheckTokenizer(Tokenizer.Load(final, run.Store.TokenizerPlaces, run.Store.TokenizerDownload), final);
            if (File.Exists(Path.ChangeExtension(tokens.Path, ".messages")))
            {
                using ChatFile chat = ChatFile.Open(tokens.Path);
                chat.Verify();
            }
            return null;
        }
        catch (Exception e) when (e is InvalidDataException or FileNotFoundException) { return e.Message; }
    }

    private string HashSource()
    {
        if (!File.Exists(Recipe.Source) || new FileInfo(Recipe.Source).Length > HashedBytes) return Source.Open(Recipe.Source).Fingerprint;
        using FileStream stream = File.OpenRead(Recipe.Source);
        return Convert.ToHexStringLower(SHA256.HashData(stream));
    }
}
