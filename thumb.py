import sys; sys.path.insert(0,'/work/main')
import torch
from PIL import Image
from animportrait3d_core.avatar.io import load_avatar
from animportrait3d_core.avatar import AvatarRig
from animportrait3d_core.animation import stress_clip
from animportrait3d_core.render import render_gaussians
from animportrait3d_core.cameras import orbit_cameras
rows=[]
for n in ('plain','painted'):
    a=load_avatar(f'/work/two/styles/avatar_{n}.safetensors'); rig=AvatarRig(a); p=a.parameters
    c=lambda yaw: orbit_cameras([yaw],[0.],166,target=[0.,.36,.1],fov_degrees=15.)
    S=[(p,0.),(p.replace(eyelids=torch.ones(1,2)),25.),(p.replace(jaw_pose=torch.tensor([[.3,0,0]])),0.),(p.replace(jaw_pose=torch.tensor([[.15,0,0]])),-35.)]
    row=[torch.nn.functional.pad(render_gaussians(rig.pose(s),c(y),background=torch.ones(3)).color[0].permute(2,0,1),(1,1,1,1),value=1.) for s,y in S]
    rows.append(torch.cat(row,2))
im=torch.cat(rows,1).permute(1,2,0).clamp(0,1)
Image.fromarray((im*255).round().byte().numpy()).save('/work/thumb.png'); Image.fromarray((im*255).round().byte().numpy()).save('/work/main/workflows/two_styles.jpg',quality=88); print(im.shape)
