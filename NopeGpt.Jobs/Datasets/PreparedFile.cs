using NopeGpt.Data.Tokenization;

namespace NopeGpt.Jobs.Datasets;

/// <summary>A token file outside of the store, with the tokenizer.json that made it and, of conversations, the .messages file beside it. Until all of it is
/// whole, the work lies in a hidden folder beside it; stopped or killed, the next attempt goes on there.</summary>
internal sealed class PreparedFile
{
    // The working folder's name is longer, and file systems take 255 bytes.
    private const int LongestName = 200;
    private const string LockName = "lock";

    private readonly string _path;

    public PreparedFile(string path) => _path = Path.GetFullPath(path);

    public string Messages => Path.ChangeExtension(_path, ".messages");

    public string TokenizerFile => Path.Combine(Folder, Tokenizer.FileName);

    private string Folder => Path.GetDirectoryName(_path)!;

    private string Work => Path.Combine(Folder, $".{Path.GetFileName(_path)}.new");

    /// <summary>Why a file can not be made under that name, with the cure; null where it can.</summary>
    public static string? Problem(string path)
    {
        if (path.Trim().Length == 0 || Path.EndsInDirectorySeparator(path)) return "name a new file";
        PreparedFile file = new(path);
        string name = Path.GetFileName(file._path);
        if (Directory.Exists(path)) return "a folder has this name: name a new file";
        if (File.Exists(path)) return "the file is there already: name a new one, or delete it";
        if (name.Length > LongestName) return $"the name is longer than {LongestName} characters: choose a shorter one";
        if (name == Tokenizer.FileName || file.Messages == file._path) return $"{Tokenizer.FileName} and a file that ends in .messages are made beside it: choose another name";
        for (string? above = file.Folder; above is not null; above = Path.GetDirectoryName(above))
            if (File.Exists(above)) return $"{above} is a file and no folder: name another place";
        if (File.Exists(file.Messages) && !MadeTokens.IsIn(file.Work)) return $"{file.Messages} is there already and may be of other conversations: name a new file, or delete it";
        return null;
    }

    /// <summary>Makes the file, or goes on with it.</summary>
    /// <exception cref="OperationCanceledException">Cancelled; what is finished stays beside the file.</exception>
    /// <exception cref="UserException">Source or tokenizer are not as the recipe says, another tokenizer lies beside the file, or another process makes it.</exception>
    public MadeDataset Make(Store store, PrepareConfig recipe, ulong seed, MakerReports reports, TimeProvider time, CancellationToken cancel)
    {
        CheckTokenizer(store, recipe);
        Directory.CreateDirectory(Work);
        MadeDataset made;
        using (Lock())
        {
            try
            {
                made = new DatasetMaker(store, recipe, seed, reports, time).Make(Work, cancel, used => CheckTokenizer(store, used));
                Publish();
            }
            catch (UserException) when (!DatasetMaker.HasWork(Work))
            {
                DatasetMaker.Clear(Work);
                File.Delete(Path.Combine(Work, LockName));
                Directory.Delete(Work);
                throw;
            }
        }
        Directory.Delete(Work, recursive: true);
        return made;
    }

    /// <summary>The token file comes last: where it is, all is.</summary>
    private void Publish()
    {
        if (!File.Exists(TokenizerFile))
        {
            string aside = Path.Combine(Work, Tokenizer.FileName + ".new");
            File.Copy(Path.Combine(Work, Tokenizer.FileName), aside, overwrite: true);
            File.Move(aside, TokenizerFile);
        }
        string messages = Path.Combine(Work, DatasetMaker.MessagesName);
        // An attempt that was killed here may have moved them.
        if (File.Exists(messages)) File.Move(messages, Messages, overwrite: true);
        File.Move(Path.Combine(Work, DatasetMaker.TokensName), _path);
    }

    private FileStream Lock()
    {
        try { return new FileStream(Path.Combine(Work, LockName), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None); }
        catch (IOException e) when (!DiskErrors.IsUnwritable(e)) { throw new UserException($"another process is making {_path}: wait for it, or name another file"); }
    }

    /// <summary>Refuses before any work where it is sure that the tokenizer beside the file is another.</summary>
    private void CheckTokenizer(Store store, PrepareConfig recipe)
    {
        if (!File.Exists(TokenizerFile)) return;
        // One that is to be trained on the text is another, unless an attempt was killed that had put it there.
        if (recipe.Tokenizer.Length == 0 && !File.Exists(Path.Combine(Work, Tokenizer.FileName)))
            throw new UserException($"{TokenizerFile} is there already, and a tokenizer is to be trained: use it (--tokenizer {TokenizerFile}), or name a file in another folder");
        if (recipe.Tokenizer.Length == 0) return;
        Tokenizer wanted = Tokenizer.Load(recipe.Tokenizer, store.TokenizerPlaces, store.TokenizerDownload);
        if (!Fits(store, wanted) && !Fits(store, wanted.WithChatMarkers())) throw Other();
    }

    private void CheckTokenizer(Store store, Tokenizer used)
    {
        if (File.Exists(TokenizerFile) && !Fits(store, used)) throw Other();
    }

    private UserException Other() => new($"{TokenizerFile} is another tokenizer than the one that is asked for: use it (--tokenizer {TokenizerFile}), or name a file in another folder");

    /// <summary>Whether readers of the file would take the tokenizer beside it for the one that made it.</summary>
    private bool Fits(Store store, Tokenizer used)
    {
        try
        {
            Tokenizer beside = Tokenizer.Load(TokenizerFile, [Folder, .. store.TokenizerPlaces], store.TokenizerDownload);
            return beside.Hash == used.Hash || beside.WithChatMarkers().Hash == used.Hash;
        }
        catch (Exception e) when (e is InvalidDataException or FileNotFoundException) { throw new UserException($"{e.Message.TrimEnd('.')}: a {Tokenizer.FileName} is made beside the file, so name one in another folder"); }
    }
}
