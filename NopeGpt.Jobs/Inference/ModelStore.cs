namespace NopeGpt.Jobs.Inference;

/// <summary>How much of the machine loaded models may take.</summary>
/// <param name="Models">Models at once.</param>
/// <param name="Bytes">Bytes of parameters together.</param>
internal sealed record ModelLimits(int Models, long Bytes)
{
    /// <summary>Three models, and half of the memory that this process may use.</summary>
    public static ModelLimits Default => new(3, GC.GetGCMemoryInfo().TotalAvailableMemoryBytes / 2);
}

/// <summary>The right to use a loaded model; it stays in memory until this is disposed.</summary>
internal sealed class ModelLease(LoadedModel model, Action release) : IDisposable
{
    private Action? _release = release;

    public LoadedModel Model { get; } = model;

    public void Dispose() => Interlocked.Exchange(ref _release, null)?.Invoke();
}

/// <summary>The loaded models. Each checkpoint is loaded once, whoever asks; the one longest unused makes room for another; one that was
/// replaced or deleted on disk is not used again.</summary>
internal sealed class ModelStore(ModelCatalog catalog, ComputeDevice device, ModelLimits limits, Action<string> log) : IDisposable
{
    private readonly Lock _gate = new();
    private readonly Dictionary<string, Entry> _entries = [];
    private readonly Dictionary<string, (CheckpointStamp Stamp, string Message)> _damaged = [];

    private sealed class Entry(string folder, CheckpointStamp stamp, Task<LoadedModel> loading)
    {
        public string Folder => folder;
        public CheckpointStamp Stamp => stamp;
        public Task<LoadedModel> Loading => loading;
        public int Users { get; set; }
        public long LastUse { get; set; }
        public bool Retired { get; set; }
    }

    /// <summary>Folders of the models in memory.</summary>
    public IReadOnlyList<string> Loaded
    {
        get
        {
            lock (_gate) return [.. _entries.Values.Where(e => e.Loading.IsCompletedSuccessfully).Select(e => e.Folder)];
        }
    }

    /// <summary>The model of that name, loaded if need be. A damaged newest checkpoint of a run is reported and the one before it is taken.</summary>
    /// <exception cref="ModelException">Unknown, damaged, or no room.</exception>
    public async Task<ModelLease> AcquireAsync(string name, CancellationToken cancel = default)
    {
        IReadOnlyList<string> folders = catalog.Resolve(name);
        for (int i = 0; ; i++)
        {
            try { return await AcquireFolderAsync(folders[i], cancel); }
            catch (ModelException e) when (e.Failure == ModelFailure.Unusable && i + 1 < folders.Count)
            {
                log($"{e.Message}; the checkpoint before it is taken");
            }
        }
    }

    private async Task<ModelLease> AcquireFolderAsync(string folder, CancellationToken cancel)
    {
        Entry entry;
        lock (_gate)
        {
            RetireStale();
            CheckpointStamp stamp = CheckpointStamp.Of(folder);
            if (_damaged.TryGetValue(folder, out (CheckpointStamp Stamp, string Message) known))
            {
                if (known.Stamp == stamp) throw new ModelException(ModelFailure.Unusable, known.Message);
                _damaged.Remove(folder);
            }
            if (!_entries.TryGetValue(folder, out entry!))
            {
                MakeRoom(stamp.Bytes);
                // Not on the inference lane: replies go on while another model is loaded.
                entry = new(folder, stamp, Task.Run(() => LoadedModel.Load(folder, device, catalog.TokenizerPlaces), CancellationToken.None));
                _entries.Add(folder, entry);
            }
            entry.Users++;
            entry.LastUse = Environment.TickCount64;
        }
        try
        {
            return new ModelLease(await entry.Loading.WaitAsync(cancel), () => Release(entry));
        }
        catch (Exception e)
        {
            if (e is ModelException failed) Forget(entry, failed);
            else if (entry.Loading.IsFaulted) Forget(entry, null);
            Release(entry);
            throw;
        }
    }

    private void Forget(Entry entry, ModelException? damaged)
    {
        lock (_gate)
        {
            Retire(entry);
            if (damaged?.Failure == ModelFailure.Unusable) _damaged[entry.Folder] = (entry.Stamp, damaged.Message);
        }
    }

    private void Release(Entry entry)
    {
        lock (_gate)
        {
            entry.Users--;
            entry.LastUse = Environment.TickCount64;
            if (entry.Retired) DisposeUnused(entry);
        }
    }

    private void RetireStale()
    {
        foreach (Entry entry in _entries.Values.Where(e => CheckpointStamp.Of(e.Folder) != e.Stamp).ToArray())
        {
            log($"{entry.Folder} has changed on disk: what was loaded of it is dropped");
            Retire(entry);
        }
    }

    private void MakeRoom(long bytes)
    {
        if (bytes > limits.Bytes)
            throw new ModelException(ModelFailure.NoRoom, $"the model needs {Megabytes(bytes)} MB and models may take {Megabytes(limits.Bytes)} MB: start serve with a larger --model_memory");
        while (_entries.Count >= limits.Models || _entries.Values.Sum(e => e.Stamp.Bytes) + bytes > limits.Bytes)
        {
            Entry? oldest = _entries.Values.Where(e => e.Users == 0).MinBy(e => e.LastUse);
            if (oldest is null) throw new ModelException(ModelFailure.NoRoom, $"all {_entries.Count} models in memory are answering: try again when one has finished, or start serve with a larger --max_models");
            Retire(oldest);
        }
    }

    private void Retire(Entry entry)
    {
        if (_entries.GetValueOrDefault(entry.Folder) == entry) _entries.Remove(entry.Folder);
        entry.Retired = true;
        DisposeUnused(entry);
    }

    /// <summary>A model that is still being loaded for nobody is disposed when it is there.</summary>
    private static void DisposeUnused(Entry entry)
    {
        if (entry.Users == 0)
            _ = entry.Loading.ContinueWith(t => t.Result.Dispose(), CancellationToken.None, TaskContinuationOptions.OnlyOnRanToCompletion | TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
    }

    private static long Megabytes(long bytes) => (bytes + 999_999) / 1_000_000;

    public void Dispose()
    {
        lock (_gate)
        {
            foreach (Entry entry in _entries.Values.ToArray()) Retire(entry);
        }
    }
}

/// <summary>Tells one state of a checkpoint on disk from another: sizes and times of its files. All zero where there is none.</summary>
internal readonly record struct CheckpointStamp(long Bytes, long ModelTime, long ConfigTime, long TokenizerTime)
{
    public static CheckpointStamp Of(string folder)
    {
        FileInfo model = new(Path.Combine(folder, "model.safetensors"));
        if (CheckpointModel.IsAdapter(folder)) return OfAdapter(folder);
        return model.Exists ? new(model.Length, model.LastWriteTimeUtc.Ticks, Time("config.json"), Time("tokenizer.json")) : default;

        // The time of a missing file is a fixed one in 1601.
        long Time(string name) => File.GetLastWriteTimeUtc(Path.Combine(folder, name)).Ticks;
    }

    // The adapter in place of the config: a run never changes the base under it.
    private static CheckpointStamp OfAdapter(string folder)
    {
        FileInfo adapter = new(Path.Combine(folder, "adapter.safetensors"));
        CheckpointStamp weights = default;
        try { weights = Of(CheckpointModel.Weights(folder)); }
        catch (InvalidDataException) { /* loading says why */ }
        return weights with { Bytes = weights.Bytes + (adapter.Exists ? adapter.Length : 0), ConfigTime = adapter.Exists ? adapter.LastWriteTimeUtc.Ticks : 0 };
    }
}
