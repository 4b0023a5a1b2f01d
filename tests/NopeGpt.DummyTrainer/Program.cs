using NopeGpt.DummyTrainer;

// train RUN_FOLDER --root DIR --detached   speaks the contract of a run's folder without training anything
// dashboard DIR KEY=VALUE...               a host with the queue and nothing else, whose trainers are this program
// worker DIR KEY=VALUE...                  the same without the right to be the only one, as nopegpt worker
return args switch
{
    ["train", string folder, .. string[] options] => await Trainer.RunAsync(folder, options),
    ["dashboard", string root, .. string[] settings] => await Dashboard.RunAsync(root, settings),
    ["worker", string root, .. string[] settings] => await Dashboard.RunAsync(root, settings, worker: true),
    _ => throw new ArgumentException($"not understood: {string.Join(' ', args)}"),
};
